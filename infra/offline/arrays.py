"""Arrow columns of log rows to the numpy columns that both sides share, exact to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.plan import View
from skewless.contract.rows import NO_TIME, Versions, ViewRead
from skewless.contract.status import BoolArray, Int64Array
from skewless.infra.log.accepted import CREATED, EVENT, RUN, SEQ, TOMBSTONE
from skewless.infra.offline.matched_rows import MatchedRows

_GROUP_BYTES = 64_000_000


def nulls(column: pa.ChunkedArray) -> BoolArray:
    """Return where a column is null, shape ``(n,)``."""
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)


def int64s(column: pa.ChunkedArray, fill: int) -> Int64Array:
    """Return an integer column as int64, nulls replaced."""
    filled = column.cast(pa.int64()).fill_null(fill)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64).copy()


def values(column: pa.ChunkedArray, dtype: DType) -> npt.NDArray[Any]:
    """Return a column as the numpy type of its dtype; nulls are zero, or None for text."""
    if dtype.is_text:
        objects = np.empty(len(column), dtype=object)
        objects[:] = column.to_pylist()
        return objects
    filled = column.fill_null(pa.scalar(0, pa.int64()).cast(column.type))
    return np.asarray(filled.to_numpy(zero_copy_only=False)).astype(dtype.numpy)


def versions(table: pa.Table) -> Versions:
    """Return where each log row comes from; rows that are all null were not found."""
    return Versions(
        event_ts=int64s(table[EVENT], NO_TIME),
        created_ts=int64s(table[CREATED], NO_TIME),
        seq=int64s(table[SEQ], -1),
        run_id=int64s(table[RUN], -1),
        tombstone=np.asarray(table[TOMBSTONE].fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_),  # noqa: FBT003 - Arrow's own signature
    )


def view_read(view: View, winners: MatchedRows) -> ViewRead:
    """Return log rows in the shape of an online read; fetched some columns at a time, which bounds the memory."""
    first, *others = _groups(view.features, winners.count)
    rows = winners.rows([EVENT, CREATED, SEQ, RUN, TOMBSTONE, *first])
    hit = rows.at < rows.table.num_rows
    stood = _spread_versions(versions(rows.table), rows.at, hit)
    found = hit & ~stood.tombstone
    absent = ~found
    read_values: dict[str, npt.NDArray[Any]] = {}
    read_nulls: dict[str, BoolArray] = {}
    for group in (first, *others):
        rows = rows if group is first else winners.rows(group)
        for name in group:
            column, dtype = rows.table[name], view.feature(name).dtype
            read_values[name] = _spread(values(column, dtype), rows.at, hit)
            # Shared where it is the same: most columns hold no null.
            read_nulls[name] = _spread(nulls(column), rows.at, hit) | absent if column.null_count else absent
            if dtype.is_text:
                read_values[name][read_nulls[name]] = None
    return ViewRead(found=found, available=True, versions=stood, values=read_values, nulls=read_nulls)


def _groups(features: Sequence[Column], rows: int) -> list[list[str]]:
    """Return the features' names, at least one group, so many together that a group takes about ``_GROUP_BYTES``."""
    names = [column.name for column in features]
    size = max(1, _GROUP_BYTES // (8 * rows + 1))
    return [names[first : first + size] for first in range(0, len(names), size)] or [[]]


def _spread_versions(found: Versions, at: Int64Array, hit: BoolArray) -> Versions:
    none = Versions.empty(1)
    spread = {
        item.name: np.where(hit, _spread(getattr(found, item.name), at, hit), getattr(none, item.name))
        for item in fields(Versions)
    }
    return Versions(**spread)


def _spread(compact: npt.NDArray[Any], at: Int64Array, hit: BoolArray) -> npt.NDArray[Any]:
    """Return the values at places, shape ``(n,)``; zero (None for text) where nothing was hit."""
    nothing = None if compact.dtype == object else 0
    if not len(compact):
        return np.full(len(at), nothing, dtype=compact.dtype)
    spread = compact.take(at, mode="clip")
    if not hit.all():
        spread[~hit] = nothing
    return spread
