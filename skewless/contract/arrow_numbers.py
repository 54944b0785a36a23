"""Convert columns between Arrow, numpy and Python without pandas, which ``pa.array`` and ``to_numpy`` import."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.status import BoolArray

# Up to so many Python values are converted faster than pandas is imported.
_FEW = 10_000


def numbers(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column of numbers as a new array, shape ``(n,)``; with nulls, what ``to_numpy`` returns.

    >>> numbers(pa.chunked_array([[1, 2], [3]]))
    array([1, 2, 3])
    """
    chunks = [chunk for chunk in (column.chunks if isinstance(column, pa.ChunkedArray) else [column]) if len(chunk)]
    if not chunks and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return np.empty(0, column.type.to_pandas_dtype())
    if not chunks or column.null_count:
        return np.array(column.to_numpy(zero_copy_only=False))
    return np.concatenate([np.from_dlpack(chunk) for chunk in chunks])


def filled_numbers(column: pa.Array | pa.ChunkedArray, fill: float) -> npt.NDArray[Any]:
    """Return a column of integers or floats as a new array, shape ``(n,)``, with nulls replaced.

    >>> filled_numbers(pa.chunked_array([[1, None], [3]]), 7)
    array([1, 7, 3])
    """
    dtype = np.dtype(column.type.to_pandas_dtype())
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if len(chunks) == 1:
        return _filled(chunks[0], dtype, fill)
    return np.concatenate([np.empty(0, dtype), *(_filled(chunk, dtype, fill) for chunk in chunks)])


def shared_numbers(column: pa.Array, fill: float) -> npt.NDArray[Any]:
    """Return ``filled_numbers``; without nulls, they are read-only and share the memory of the column.

    >>> shared_numbers(pa.array([1, None]), 7)
    array([1, 7])
    """
    return filled_numbers(column, fill) if column.null_count or not len(column) else np.from_dlpack(column)


def find_nulls(column: pa.Array | pa.ChunkedArray) -> BoolArray:
    """Return where a column is null, as a new array, shape ``(n,)``.

    >>> find_nulls(pa.array(["a", None]))
    array([False,  True])
    """
    if not column.null_count:
        return np.zeros(len(column), dtype=np.bool_)
    return numbers(column.is_null().cast(pa.uint8())).view(np.bool_)


def _filled(chunk: pa.Array, dtype: np.dtype[Any], fill: float) -> npt.NDArray[Any]:
    validity, data = chunk.buffers()
    end = chunk.offset + len(chunk)
    if not len(chunk) or data is None:
        return np.full(len(chunk), fill, dtype)
    values = np.frombuffer(data, dtype, end)[chunk.offset :].copy()
    if validity is not None:
        bits = np.unpackbits(np.frombuffer(validity, np.uint8), count=end, bitorder="little")
        np.copyto(values, fill, where=bits[chunk.offset :] == 0)
    return values


def int64_array(values: npt.NDArray[np.int64], is_null: npt.NDArray[np.bool_] | None = None) -> pa.Int64Array:
    """Return integers as an Arrow array, of their memory where possible.

    >>> int64_array(np.arange(2), np.array([False, True])).to_pylist()
    [0, None]
    """
    data = np.ascontiguousarray(values, np.int64)
    validity = None if is_null is None else pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    return pa.Array.from_buffers(pa.int64(), len(data), [validity, pa.py_buffer(data)])


def typed_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return ``pa.array(values, kind)``; a few thousand integers or texts need no pandas.

    >>> typed_array(["a", None, "b"], pa.string()).to_pylist()
    ['a', None, 'b']
    """
    if len(values) > _FEW:
        return pa.array(values, kind)
    types = set(map(type, values)) - {type(None)}
    if kind == pa.int64() and types <= {int}:
        is_null = np.fromiter((value is None for value in values), np.bool_, len(values)) if None in values else None
        return int64_array(np.array([value or 0 for value in values], np.int64), is_null)
    if kind == pa.string() and types <= {str}:
        return _text_array([value if value is None else value.encode() for value in values], kind)
    if kind in (pa.binary(), pa.large_binary()) and types <= {bytes}:
        return _text_array(values, kind)
    return pa.array(values, kind)


def _text_array(values: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    is_null = np.fromiter((value is None for value in values), np.bool_, len(values)) if None in values else None
    texts = [value or b"" for value in values]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))])
    offset = np.int64 if kind == pa.large_binary() else np.int32
    if ends[-1] > np.iinfo(offset).max:
        return pa.array(values, kind)
    validity = None if is_null is None else pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    buffers = [validity, pa.py_buffer(ends.astype(offset)), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(kind, len(values), buffers)


@cache
def binary_scalar(data: bytes) -> pa.LargeBinaryScalar:
    """Return bytes as a scalar of the type of large binary columns.

    ``pa.scalar`` would import pandas.

    >>> binary_scalar(b"$").as_py()
    b'$'
    """
    return typed_array([data], pa.large_binary())[0]
