"""Convert numbers between Arrow and numpy without pandas, which ``pa.array`` and ``to_numpy`` import."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def numbers(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column of numbers as a new array, shape ``(n,)``; with nulls, what ``to_numpy`` returns.

    >>> numbers(pa.chunked_array([[1, 2], [3]]))
    array([1, 2, 3])
    """
    chunks = [chunk for chunk in (column.chunks if isinstance(column, pa.ChunkedArray) else [column]) if len(chunk)]
    if not chunks or column.null_count:
        return np.array(column.to_numpy(zero_copy_only=False))
    return np.concatenate([np.from_dlpack(chunk) for chunk in chunks])


def filled_numbers(column: pa.Array | pa.ChunkedArray, fill: int) -> npt.NDArray[Any]:
    """Return a column of integers or floats as a new array, shape ``(n,)``, with nulls replaced.

    >>> filled_numbers(pa.chunked_array([[1, None], [3]]), 7)
    array([1, 7, 3])
    """
    dtype = np.dtype(column.type.to_pandas_dtype())
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return np.concatenate([np.empty(0, dtype), *(_filled(chunk, dtype, fill) for chunk in chunks)])


def _filled(chunk: pa.Array, dtype: np.dtype[Any], fill: int) -> npt.NDArray[Any]:
    validity, data = chunk.buffers()
    end = chunk.offset + len(chunk)
    if not len(chunk) or data is None:
        return np.full(len(chunk), fill, dtype)
    values = np.frombuffer(data, dtype, end)[chunk.offset :].copy()
    if validity is not None:
        bits = np.unpackbits(np.frombuffer(validity, np.uint8), count=end, bitorder="little")
        values[bits[chunk.offset :] == 0] = fill
    return values


def int64_array(values: npt.NDArray[np.int64], is_null: npt.NDArray[np.bool_] | None = None) -> pa.Int64Array:
    """Return integers as an Arrow array, of their memory where possible.

    >>> int64_array(np.arange(2), np.array([False, True])).to_pylist()
    [0, None]
    """
    data = np.ascontiguousarray(values, np.int64)
    validity = None if is_null is None else pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    return pa.Array.from_buffers(pa.int64(), len(data), [validity, pa.py_buffer(data)])
