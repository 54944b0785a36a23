"""The point-in-time join: what each entity's row was at each time, from the accepted log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from skewless.contract.plan import View
from skewless.contract.rows import NO_TIME, ViewRead, missing
from skewless.contract.status import Int64Array
from skewless.infra.log.accepted import CREATED, EVENT, REJECT, RUN, SEQ, TOMBSTONE, AcceptedLog, due_sql
from skewless.infra.log.runs import KnownRange, MaterializationRun
from skewless.infra.offline.arrays import view_read
from skewless.infra.offline.as_of import TIME, History
from skewless.infra.offline.matched_rows import MatchedRows, fetch, find, registered

if TYPE_CHECKING:
    import duckdb

_ORIGIN = (EVENT, CREATED, SEQ, RUN, TOMBSTONE)
# Ranges are found through blocks of 2^8 positions, by a hash join: as-of would sort the whole log.
_BLOCK_BITS = 8

Order = Literal["event_time", "knowledge", "finished", "started"]


class PointInTime:
    """Joins entity rows with the history of a view (SEMANTICS 2).

    A history says from when on each log row stood:

    - ``event_time``: from its ``event_ts``; late rows too, as if they had come in time.
    - ``knowledge``: from when serving could have known it (2.6): what training sees.
    - ``finished``: from the end of the first run that applied it: the oldest that a read may find.
    - ``started``: from the start of the run that accepted it: the newest that a read may find.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def find(
        self,
        view: View,
        log: AcceptedLog,
        entities: pa.Table,
        order: Order,
        *,
        ranges: Sequence[KnownRange],
        runs: Sequence[MaterializationRun],
        end: int | None = None,
    ) -> Int64Array:
        """Return for each entity row the log position that stood at its time, in the order given; -1: none.

        Expiry is not judged here: status and ttl have one expression, in ``skewless.contract.status``.

        Args:
            entities: key columns and ``__t`` (int64 microseconds); any order, duplicates kept.
            ranges: by which run's end each log position was applied.
            runs: the ledger.
            end: the log as it was when this was its next position; by default as it is.
        """
        files = log.files()
        if not files or not entities.num_rows:
            return np.full(entities.num_rows, -1, dtype=np.int64)
        asked = entities.select([*(key.name for key in view.keys), TIME])
        tables = {"known_ranges": _ranges_table(ranges), "run_starts": _starts_table(runs)}
        with registered(self._connection, tables):
            found = history(view, order)
            if end is not None:
                found = replace(found, condition=f"{found.condition} AND {SEQ} < {end}")
            return find(self._connection, found, [files], asked, log.next_seq())

    def read(self, view: View, log: AcceptedLog, seq: Int64Array) -> ViewRead:
        """Return the log rows at positions, in their order; -1 finds nothing."""
        files = log.files()
        if not files or not len(seq):
            return missing(view, len(seq), available=True)

        return view_read(view, MatchedRows(self._connection, event_history(view), [files], seq))

    def keys(self, view: View, log: AcceptedLog, seq: Int64Array) -> pa.Table:
        """Return the keys of the log rows at positions, in their order; null for -1."""
        columns = [column.name for column in view.keys]
        files = log.files()
        if not files:
            return pa.table({name: pa.nulls(len(seq)) for name in columns})
        return fetch(self._connection, event_history(view), [files], seq, columns).in_order()


def history(view: View, order: Order) -> History:
    """Return from when on each log row of a view stood, and which of those that stood is read; bind its files.

    In event time the latest row is read, in the other orders the newest that a newer-wins store had
    been brought by then. Filtering after a reduction by event time would be wrong: an older row that
    came later never stood (SEMANTICS 2.2).
    """
    if order == "event_time":
        return event_history(view)
    if order == "started":
        moment = "r.started_us"
        joined = f"JOIN run_starts r ON log.{RUN} = r.run_id"
    else:
        known = f"CASE WHEN r.kind = 'live' THEN r.ended_us ELSE {due_sql(view.delay_us)} END"
        moment = known if order == "knowledge" else "r.ended_us"
        joined = f"JOIN known_ranges r ON log.{SEQ} >> {_BLOCK_BITS} = r.block AND log.{SEQ} BETWEEN r.first AND r.last"
    rows = event_history(view)
    return replace(
        rows,
        relation=f"(SELECT log.*, {moment} AS __from FROM read_parquet(?) AS log {joined})",
        valid_from="__from",
        rank=(EVENT, *rows.rank),
        running=True,
    )


def event_history(view: View) -> History:
    """Return the history in which each log row stands from its ``event_ts``; bind the log's files."""
    return History(
        relation="read_parquet(?)",
        keys=[column.name for column in view.keys],
        valid_from=EVENT,
        # Without such a column in the source, no row of the log has a time of creation.
        rank=(f"coalesce({CREATED}, {NO_TIME})",) if view.source.created_column else (),
        row_id=SEQ,
        columns=[*_ORIGIN, *(column.name for column in view.features)],
        condition=f"{REJECT} IS NULL",
    )


def live_delays(ranges: Sequence[KnownRange]) -> str:
    """Return SQL for the median of publication minus event time over log rows in live ranges; bind files."""
    values = ", ".join(f"({item.first}, {item.last}, {item.ended_us})" for item in ranges)
    return (
        f"SELECT quantile_disc(r.ended_us - log.{EVENT}, 0.5)"
        f" FROM (SELECT * FROM read_parquet(?) WHERE {REJECT} IS NULL) AS log"
        f" ASOF JOIN (VALUES {values}) AS r(first, last, ended_us)"
        f" ON log.{SEQ} >= r.first WHERE log.{SEQ} <= r.last"
    )


def _ranges_table(ranges: Sequence[KnownRange]) -> pa.Table:
    """Return the ranges, each once for every block of positions that it touches."""
    first = np.array([item.first for item in ranges], dtype=np.int64)
    last = np.array([item.last for item in ranges], dtype=np.int64)
    blocks = (last >> _BLOCK_BITS) - (first >> _BLOCK_BITS) + 1
    start = np.cumsum(blocks) - blocks
    which = np.repeat(np.arange(len(ranges)), blocks)
    table = pa.table(
        {
            "first": first,
            "last": last,
            "kind": pa.array([item.kind for item in ranges], pa.string()),
            "ended_us": pa.array([item.ended_us for item in ranges], pa.int64()),
        }
    )
    block = (first >> _BLOCK_BITS)[which] + np.arange(len(which)) - start[which]
    return table.take(which).append_column("block", pa.array(block, pa.int64()))


def _starts_table(runs: Sequence[MaterializationRun]) -> pa.Table:
    return pa.table(
        {
            "run_id": pa.array([run.run_id for run in runs], pa.int64()),
            "started_us": pa.array([run.started_us for run in runs], pa.int64()),
        }
    )
