"""Event logs for tests: events written as Parquet files whose columns differ, as those of a living log do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.names import partition_hash
from skewless.contract.windows.view import WindowView
from skewless.infra.log.bucket_order import BucketOrder
from skewless.infra.log.log_columns import EVENT, INGEST, KNOWN_AT, RAW, REJECT, SEQ
from skewless.infra.reads.offline.window_events import LogPartition
from tests.windows.oracle import Event, Value

_ARROW = {
    DType.INT64: pa.int64(),
    DType.FLOAT64: pa.float64(),
    DType.STRING: pa.string(),
    DType.BOOL: pa.bool_(),
}


@dataclass(frozen=True, kw_only=True)
class LoggedEvent:
    """One row of a log partition; its position is its place in it.

    Args:
        recorded: its own ``__known_at``.
        rejected: it stands in quarantine.
    """

    key: tuple[Value, ...]
    ts: int
    values: Mapping[str, Value]
    recorded: int | None = None
    rejected: bool = False


def signed(partition: str) -> int:
    return int(np.uint64(partition_hash(partition)).view(np.int64))


def write_part(
    folder: Path,
    view: WindowView,
    partition: str,
    rows: Sequence[LoggedEvent],
    *,
    ends: Sequence[tuple[int, int, int]] = (),
    cut: int | None = None,
    order: BucketOrder | None = None,
) -> LogPartition:
    """Write a partition as two files, of which only the first has ``__known_at``, unless it is cut at 0.

    Args:
        order: of the rows in the first file; None: that of their positions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cut = len(rows) if cut is None else cut
    files = []
    for number, (first, some) in enumerate(((0, rows[:cut]), (cut, rows[cut:]))):
        if some:
            table = _table(view, first, some)
            path = folder / f"{len(list(folder.iterdir()))}.parquet"
            if number == 0 and order is not None:
                write_sorted(path, table, order)
            else:
                pq.write_table(table if number == 0 else table.drop_columns([KNOWN_AT]), path)
            files.append(str(path))
    columns = {
        name: pa.array([one[i] for one in ends], pa.int64()) for i, name in enumerate(("first", "last", "ended_us"))
    }
    return LogPartition(partition=partition, files=files, ends=pa.table(columns))


def write_sorted(path: Path, table: pa.Table, order: BucketOrder) -> None:
    """Write a table as compaction writes it."""
    with pq.ParquetWriter(path, order.extend(table.schema)) as writer:
        for at in range(0, table.num_rows, order.block_rows):
            writer.write_table(order.sort(table.slice(at, order.block_rows)), order.group_rows)


def expected(
    partition: str, rows: Sequence[LoggedEvent], *, ends: Sequence[tuple[int, int, int]] = (), cut: int | None = None
) -> list[Event]:
    """Return the accepted events of what ``write_part`` writes."""
    events = []
    for seq, row in enumerate(rows):
        known = row.recorded if cut is None or seq < cut else None
        if known is None:
            known = next((ended for first, last, ended in ends if first <= seq <= last), None)
        if not row.rejected and None not in row.key:
            events.append(
                Event(
                    key=row.key, ts=row.ts, partition=signed(partition), seq=seq, values=dict(row.values), known=known
                )
            )
    return events


def bits(values: Sequence[float | None]) -> list[str]:
    """Return values so that -0.0 differs from 0.0 and null equals null."""
    return ["null" if value is None or math.isnan(value) else value.hex() for value in values]


def column_of(values: Sequence[Value], column: Column) -> pa.Array:
    return pa.array(values, _ARROW[column.dtype])


def _table(view: WindowView, first: int, rows: Sequence[LoggedEvent]) -> pa.Table:
    n = len(rows)
    keys = {key.name: column_of([row.key[i] for row in rows], key) for i, key in enumerate(view.keys)}
    inputs = {
        column.name: column_of([row.values[column.name] for row in rows], column) for column in view.logged_inputs
    }
    return pa.table(
        {
            **keys,
            **inputs,
            EVENT: pa.array([row.ts for row in rows], pa.int64()),
            INGEST: pa.array([row.ts for row in rows], pa.int64()),
            SEQ: pa.array(range(first, first + n), pa.int64()),
            REJECT: pa.array(["bad" if row.rejected else None for row in rows], pa.string()),
            RAW: pa.nulls(n, pa.string()),
            KNOWN_AT: pa.array([row.recorded for row in rows], pa.int64()),
        }
    )
