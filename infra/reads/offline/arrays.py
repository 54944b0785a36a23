"""Convert Arrow columns of log rows to numpy, bit for bit, in the form of an online read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import filled_numbers, find_nulls
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.plan import View
from skewless.contract.rows import NO_TIME, Versions, ViewRead
from skewless.contract.status import BoolArray, Int64Array
from skewless.infra.log.log_columns import CREATED, EVENT, RUN, SEQ, TOMBSTONE
from skewless.infra.reads.offline.matched_rows import HistoryRows

# Bytes of the columns that are read at a time: the memory next to the result does not grow with the number of columns.
_GROUP_BYTES = 64_000_000


def to_int64(column: pa.ChunkedArray, fill: int) -> Int64Array:
    """Return an integer column as int64, nulls replaced."""
    return filled_numbers(column.cast(pa.int64()), fill)


def to_numpy(column: pa.ChunkedArray, dtype: DType) -> npt.NDArray[Any]:
    """Return a column as the numpy type of its dtype; nulls are zero, or None for text."""
    if dtype.is_text:
        # numpy would make fixed-width text of a list, as wide as its longest value, and drop trailing zero bytes.
        objects = np.empty(len(column), dtype=object)
        objects[:] = column.to_pylist()
        return objects
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return filled_numbers(column, 0).astype(dtype.numpy)
    if pa.types.is_boolean(column.type) or pa.types.is_timestamp(column.type):
        return filled_numbers(column.cast(pa.int64()), 0).astype(dtype.numpy)
    # Fill before the conversion: to_numpy makes float64 of integers with nulls, and rounds beyond 2^53.
    filled = column.fill_null(pa.scalar(0, pa.int64()).cast(column.type))
    return np.asarray(filled.to_numpy(zero_copy_only=False)).astype(dtype.numpy)


def to_versions(table: pa.Table) -> Versions:
    """Return the origin of each log row; a row of nulls is an entity without a row."""
    return Versions(
        event_ts=to_int64(table[EVENT], NO_TIME),
        created_ts=to_int64(table[CREATED], NO_TIME),
        seq=to_int64(table[SEQ], -1),
        run_id=to_int64(table[RUN], -1),
        tombstone=filled_numbers(table[TOMBSTONE].cast(pa.uint8()), 0).astype(np.bool_),
    )


def build_view_read(view: View, count: int, read_rows: Callable[[Sequence[str]], HistoryRows]) -> ViewRead:
    """Return log rows in the form of an online read; reads some columns at a time to bound the memory.

    Args:
        count: number of distinct rows.
        read_rows: returns columns of the rows.
    """
    first, *others = _groups(view.features, count)
    rows = read_rows([EVENT, CREATED, SEQ, RUN, TOMBSTONE, *first])
    is_match = rows.at < rows.table.num_rows
    compact, none = to_versions(rows.table), Versions.empty(1)
    names = [item.name for item in fields(Versions)]
    versions = Versions(**{name: _spread(getattr(compact, name), rows.at, getattr(none, name)[0]) for name in names})
    # A tombstone reads as no row, but keeps its version: the log of a prediction names the row that was read (2.7).
    has_row = is_match & ~versions.tombstone
    absent = ~has_row
    read_values: dict[str, npt.NDArray[Any]] = {}
    read_nulls: dict[str, BoolArray] = {}
    for group in (first, *others):
        rows = rows if group is first else read_rows(group)
        for name in group:
            column, dtype = rows.table[name], view.feature(name).dtype
            read_values[name] = _spread(to_numpy(column, dtype), rows.at, None if dtype.is_text else 0)
            # Columns without nulls share one array: most columns are such.
            read_nulls[name] = _spread(find_nulls(column), rows.at, fill=True) | absent if column.null_count else absent
            if dtype.is_text:
                read_values[name][read_nulls[name]] = None
    return ViewRead(has_row=has_row, available=True, versions=versions, values=read_values, nulls=read_nulls)


def _groups(features: Sequence[Column], rows: int) -> list[list[str]]:
    """Return the names of the features in groups of about ``_GROUP_BYTES``; at least one group, maybe empty."""
    names = [column.name for column in features]
    size = max(1, _GROUP_BYTES // (8 * rows + 1))
    return [names[first : first + size] for first in range(0, len(names), size)] or [[]]


def _spread(compact: npt.NDArray[Any], at: Int64Array, fill: object) -> npt.NDArray[Any]:
    """Return the values at row numbers, shape ``(n,)``; ``fill`` without a match, whose number is that of all rows."""
    padded = np.empty(len(compact) + 1, dtype=compact.dtype)
    padded[:-1], padded[-1] = compact, fill
    return padded.take(at, mode="clip")
