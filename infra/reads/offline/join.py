"""The point-in-time join: read from the accepted log the row of each entity at each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.plan import View
from skewless.contract.rows import NO_TIME, ViewRead, empty_read
from skewless.contract.status import Int64Array
from skewless.infra.log.bucket_order import BucketRange, plan_scans, scans_sql
from skewless.infra.log.log_columns import CREATED, EVENT, REJECT, RUN, SEQ, TOMBSTONE, due_sql
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.runs import KnownRanges, RunLedger
from skewless.infra.reads.offline.arrays import build_view_read
from skewless.infra.reads.offline.as_of import TIME, History
from skewless.infra.reads.offline.matched_rows import MatchedRows, fetch_rows, find_rows, register_tables

if TYPE_CHECKING:
    import duckdb

_ORIGIN = (EVENT, CREATED, SEQ, RUN, TOMBSTONE)
# Ranges are joined by blocks of 2^8 positions: a hash join, while an as-of join would sort the whole log.
_BLOCK_BITS = 8
_RANGES_JOIN = f"JOIN known_ranges r ON log.{SEQ} >> {_BLOCK_BITS} = r.block AND log.{SEQ} BETWEEN r.first AND r.last"

_ALL_ROWS = "read_parquet(?)"

Order = Literal["event_time", "knowledge", "finished", "started"]


class PointInTimeJoin:
    """Joins entity rows with the history of a view (SEMANTICS 2).

    The order determines the time from which each log row is valid:

    - ``event_time``: its ``event_ts``; late rows count as if they had been on time.
    - ``knowledge``: when serving could have known it (2.6); training uses this order.
    - ``finished``: the end of the first run that applied it: an online read finds this row or a newer row.
    - ``started``: the start of the run that accepted it: an online read finds this row or an older row.

    Args:
        buckets: of the entities whose rows are read; None: all.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, buckets: BucketRange | None = None) -> None:
        self._connection, self._buckets = connection, buckets

    def find_positions(
        self,
        view: View,
        log: PartitionLog,
        entities: pa.Table,
        order: Order,
        *,
        ledger: RunLedger,
        upto: int | None = None,
        end: int | None = None,
    ) -> Int64Array:
        """Return for each entity row the log position of the row that is valid at its time; -1: none.

        This does not check the ttl: ``skewless.contract.status`` does.

        Args:
            entities: key columns and ``__t`` (int64 microseconds), in any order, with duplicates.
            order: the time from which rows are valid.
            ledger: the runs that wrote the log.
            upto: the last run that counts; None: all runs count.
            end: read only positions below this one; None: the whole log.
        """
        scan = self._scan(view, log)
        if not scan.files or not entities.num_rows:
            return np.full(entities.num_rows, -1, dtype=np.int64)
        rows = entities.select([*(key.name for key in view.keys), TIME])
        with register_tables(self._connection, _run_tables(ledger, view.partition, order, upto)):
            history = build_history(view, order, scan.relation)
            if end is not None:
                history = replace(history, condition=f"{history.condition} AND {SEQ} < {end}")
            return find_rows(self._connection, history, scan.files, rows, scan.rows)

    def read(self, view: View, log: PartitionLog, seq: Int64Array) -> ViewRead:
        """Return the log rows at positions, in their order; -1: no row."""
        scan = self._scan(view, log)
        if not scan.files or not len(seq):
            return empty_read(view, len(seq), available=True)

        matched = MatchedRows(self._connection, build_event_history(view, scan.relation), scan.files, seq)
        return build_view_read(view, matched.count, matched.rows)

    def read_columns(self, view: View, log: PartitionLog, seq: Int64Array, columns: Sequence[str]) -> pa.Table:
        """Return columns of the log rows at positions, in their order; null for -1."""
        scan = self._scan(view, log)
        if not scan.files:
            return pa.table({name: pa.nulls(len(seq)) for name in columns})
        history = build_event_history(view, scan.relation)
        return fetch_rows(self._connection, history, scan.files, seq, columns).in_order()

    def _scan(self, view: View, log: PartitionLog) -> _LogScan:
        files, rows = log.files(), log.next_seq()
        scans = plan_scans(files, view.keys, self._buckets)
        if all(not scan.condition for scan in scans):
            return _LogScan(relation=_ALL_ROWS, files=[files] if files else [], rows=rows)
        if len(scans) == 1 and self._buckets is not None:
            rows = rows * (self._buckets.end - self._buckets.first) // self._buckets.count
        return _LogScan(relation=scans_sql(scans), files=[scan.files for scan in scans], rows=rows)


class _LogScan(NamedTuple):
    """The rows of a log that are read: SQL to which lists of files are bound, and the approximate number of rows."""

    relation: str
    files: Sequence[Sequence[str]]
    rows: int


def build_history(view: View, order: Order, log: str = _ALL_ROWS) -> History:
    """Return the history of a view's log rows in one order; bind the log's files.

    Args:
        log: SQL of the log's rows.

    In event time a read gives the latest row. In the other orders it gives the row with the latest event time that
    the online store had received by then. Filtering after a reduction by event time would be wrong: a row that came
    later with an older event time was never in the store (SEMANTICS 2.2).
    """
    if order == "event_time":
        return build_event_history(view, log)
    if order == "started":
        # By the run of the row itself, finished or not: a crashed run may have written its rows online.
        valid_from = "r.started_us"
        join = f"JOIN run_starts r ON log.{RUN} = r.run_id"
    else:
        # A first load or a backfill brings no row live: its rows count from when they were due (SEMANTICS 2.6).
        known = f"CASE WHEN r.is_live THEN r.ended_us ELSE {due_sql(view.delay_us)} END"
        valid_from = known if order == "knowledge" else "r.ended_us"
        # An inner join: rows that no finished run has covered are known at no time.
        join = _RANGES_JOIN
    rows = build_event_history(view, log)
    return replace(
        rows,
        relation=f"(SELECT log.*, {valid_from} AS __from FROM {log} AS log {join})",
        valid_from="__from",
        rank=(EVENT, *rows.rank),
        running=True,
    )


def build_event_history(view: View, log: str = _ALL_ROWS) -> History:
    """Return the history in which each log row is valid from its ``event_ts``; bind the log's files."""
    return History(
        relation=log,
        keys=[column.name for column in view.keys],
        valid_from=EVENT,
        # Without a created column in the source, this rank is null in all rows.
        rank=(f"coalesce({CREATED}, {NO_TIME})",) if view.source.created_column else (),
        row_id=SEQ,
        columns=[*_ORIGIN, *(column.name for column in view.features)],
        # Tombstones stay in: they win like other rows, and are read as absent only later (SEMANTICS 2.3).
        condition=f"{REJECT} IS NULL",
    )


def find_live_delay(connection: duckdb.DuckDBPyConnection, log: PartitionLog, live: KnownRanges) -> int | None:
    """Return the median time from event to publication of the log rows in live ranges; None: there are no such rows."""
    if not len(live.first):
        return None
    sql = (
        f"SELECT quantile_disc(r.ended_us - log.{EVENT}, 0.5)"
        f" FROM (SELECT * FROM read_parquet(?) WHERE {REJECT} IS NULL) AS log {_RANGES_JOIN}"
    )
    with register_tables(connection, {"known_ranges": _ranges_table(live)}):
        ((delay,),) = connection.sql(sql, params=[log.files(int(live.first[0]))]).fetchall()
    return None if delay is None else int(delay)


def _run_tables(ledger: RunLedger, partition: str, order: Order, upto: int | None) -> dict[str, pa.Table]:
    """Return the table of runs that the history of an order joins."""
    if order == "event_time":
        return {}
    if order != "started":
        return {"known_ranges": _ranges_table(ledger.known_ranges(partition, upto))}
    times = ledger.times()
    n = len(times.run_id) if upto is None else int(np.searchsorted(times.run_id, upto, side="right"))
    columns = {"run_id": int64_array(times.run_id[:n]), "started_us": int64_array(times.started_us[:n])}
    return {"run_starts": pa.table(columns)}


def _ranges_table(ranges: KnownRanges) -> pa.Table:
    """Return the ranges, repeated for each block of positions that they overlap."""
    first, last = ranges.first, ranges.last
    # A long range overlaps many blocks: one row of the table for each of them.
    blocks = (last >> _BLOCK_BITS) - (first >> _BLOCK_BITS) + 1
    start = np.cumsum(blocks) - blocks
    number = np.repeat(np.arange(len(first)), blocks)
    return pa.table(
        {
            "first": int64_array(first[number]),
            "last": int64_array(last[number]),
            "is_live": int64_array(ranges.is_live[number].astype(np.int64)).cast(pa.bool_()),
            "ended_us": int64_array(ranges.ended_us[number]),
            "block": int64_array((first >> _BLOCK_BITS)[number] + np.arange(len(number)) - start[number]),
        }
    )
