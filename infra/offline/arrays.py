"""Arrow columns of log rows to the numpy columns that both sides share, exact to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.log.accepted import CREATED, EVENT, RUN, SEQ, TOMBSTONE
from skewless.dtypes import DType
from skewless.plan import Column, View
from skewless.rows import NO_TIME, Versions, ViewRead
from skewless.status import BoolArray, Int64Array


def nulls(column: pa.ChunkedArray) -> BoolArray:
    """Return where a column is null, shape ``(n,)``."""
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)


def int64s(column: pa.ChunkedArray, fill: int) -> Int64Array:
    """Return an integer column as int64, nulls replaced."""
    filled = pc.fill_null(column.cast(pa.int64()), fill)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64).copy()


def values(column: pa.ChunkedArray, dtype: DType) -> npt.NDArray[Any]:
    """Return a column as the numpy type of its dtype; nulls are zero, or None for text."""
    if dtype.is_text:
        objects = np.empty(len(column), dtype=object)
        objects[:] = column.to_pylist()
        return objects
    filled = pc.fill_null(column, pa.scalar(0, pa.int64()).cast(column.type))
    return np.asarray(filled.to_numpy(zero_copy_only=False)).astype(dtype.numpy)


def keys(table: pa.Table, columns: tuple[Column, ...]) -> dict[str, list[Any]]:
    """Return key columns as lists of Python values."""
    return {column.name: table[column.name].to_pylist() for column in columns}


def versions(table: pa.Table) -> Versions:
    """Return where each log row comes from; rows that are all null were not found."""
    return Versions(
        event_ts=int64s(table[EVENT], NO_TIME),
        created_ts=int64s(table[CREATED], NO_TIME),
        seq=int64s(table[SEQ], -1),
        run_id=int64s(table[RUN], -1),
        tombstone=np.asarray(pc.fill_null(table[TOMBSTONE], False).to_numpy(zero_copy_only=False), dtype=np.bool_),  # noqa: FBT003 - Arrow's own signature
    )


def view_read(table: pa.Table, view: View) -> ViewRead:
    """Return log rows, one per entity row and null where there is none, in the shape of an online read."""
    origin = versions(table)
    found = (origin.seq >= 0) & ~origin.tombstone
    read_nulls = {column.name: nulls(table[column.name]) | ~found for column in view.features}
    read_values = {column.name: values(table[column.name], column.dtype) for column in view.features}
    for name, array in read_values.items():
        if array.dtype == object:
            array[read_nulls[name]] = None
    return ViewRead(found=found, available=True, versions=origin, values=read_values, nulls=read_nulls)
