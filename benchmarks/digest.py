"""The identity of a result, the same whichever library holds it: contestants are compared by it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Values: TypeAlias = npt.NDArray[Any] | Sequence[Any]  # or an Arrow array, which mypy sees as Any


def digest_columns(columns: Mapping[str, Values]) -> str:
    """Return a digest of columns, which must come in the same order of rows; their own order is free.

    Numbers, booleans and times (microseconds) count as float64 bit for bit, but null and every NaN are one:
    peers show null as NaN. Text counts as its UTF-8.

    >>> digest_columns({"a": [1, None], "b": ["x", None]}) == digest_columns(
    ...     {"b": pa.array(["x", None]), "a": np.array([1.0, np.nan])}
    ... )
    True
    >>> digest_columns({"a": [0.0]}) == digest_columns({"a": [-0.0]})
    False
    """
    total = hashlib.sha256()
    for name in sorted(columns):
        total.update(f"\0{name}\0".encode())
        total.update(_column(_arrow(columns[name])))
    return total.hexdigest()


def digest_matrix(matrix: npt.NDArray[np.float64]) -> str:
    """Return a digest of a matrix, every NaN being one."""
    columns = {f"{place:06}": matrix[:, place] for place in range(matrix.shape[1])}
    return digest_columns(columns)


def _arrow(values: Values) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    return pa.array(values, from_pandas=True)


def _column(array: pa.Array) -> bytes:
    kind = array.type
    if array.null_count == len(array):
        return b"null" + str(len(array)).encode()  # its type is a matter of taste
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = array.cast(pa.string()).to_pylist()
        return b"".join(b"\0" if text is None else b"\1" + text.encode() + b"\0" for text in texts)
    if pa.types.is_timestamp(kind):
        array = array.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    numbers = np.array(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype="<f8")
    numbers[np.isnan(numbers)] = np.nan
    return numbers.tobytes()
