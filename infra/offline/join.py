"""The point-in-time join: what each entity's row was at each time, from the accepted log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import duckdb
import pyarrow as pa

from infra.log.accepted import CREATED, EVENT, REJECT, RUN, SEQ, TOMBSTONE, AcceptedLog
from infra.log.known import KnownRange
from infra.log.runs import Run
from infra.offline.arrays import view_read
from infra.offline.sql import names, quote, same_keys
from skewless.plan import View
from skewless.rows import NO_TIME, ViewRead, missing

ROW = "__row"
TIME = "__t"
_ORIGIN = (EVENT, CREATED, SEQ, RUN, TOMBSTONE)

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

    def join(
        self,
        view: View,
        log: AcceptedLog,
        entities: pa.Table,
        order: Order,
        *,
        ranges: Sequence[KnownRange],
        runs: Sequence[Run],
    ) -> ViewRead:
        """Return for each entity row the row that stood at its time, in the order given.

        Expiry is not judged here: status and ttl have one expression, in ``skewless.status``.

        Args:
            entities: key columns and ``__t`` (int64 microseconds); any order, duplicates kept.
            ranges: by which run's end each log position was applied.
            runs: the ledger.
        """
        files = log.files()
        if not files or not entities.num_rows:
            return missing(view, entities.num_rows, available=True)
        tables = {
            "entity_rows": entities.append_column(ROW, pa.array(range(entities.num_rows), pa.int64())),
            "known_ranges": _ranges_table(ranges),
            "run_starts": _starts_table(runs),
        }
        for name, table in tables.items():
            self._connection.register(name, table)
        try:
            found = self._connection.sql(as_of(view, history(view, order)), params=[files]).to_arrow_table()
        finally:
            for name in tables:
                self._connection.unregister(name)
        return view_read(found, view)


def history(view: View, order: Order) -> str:
    """Return SQL for a view's log rows, each with ``__from``; the last one up to a time stood then."""
    if order == "event_time":
        return event_history(view)
    if order == "started":
        moment = "r.started_us"
        joined = f"JOIN run_starts r ON log.{RUN} = r.run_id"
    else:
        known = f"CASE WHEN r.kind = 'live' THEN r.ended_us ELSE coalesce({CREATED}, {EVENT} + {view.delay_us}) END"
        moment = known if order == "knowledge" else "r.ended_us"
        joined = f"ASOF JOIN known_ranges r ON log.{SEQ} >= r.first WHERE log.{SEQ} <= r.last"
    return store_history(view, f"SELECT log.*, {moment} AS __from FROM {_log_rows()} AS log {joined}")


def event_history(view: View) -> str:
    """Return SQL for a view's rows, one per key and ``event_ts``, each valid from ``event_ts``."""
    keys = names(column.name for column in view.keys)
    return (
        f"SELECT *, {EVENT} AS __from FROM {_log_rows()}"
        f" QUALIFY row_number() OVER (PARTITION BY {keys}, {EVENT}"
        f" ORDER BY {_created()} DESC, {SEQ} DESC) = 1"
    )


def store_history(view: View, rows: str) -> str:
    """Return SQL for the history of a newer-wins store to which rows come in the order of ``__from``.

    Filtering after a reduction by event time would be wrong: an older row that came later never
    stood (SEMANTICS 2.2).
    """
    keys = names(column.name for column in view.keys)
    ranked = (
        f"SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY {EVENT}, {_created()}, {SEQ}) AS __rank"
        f" FROM ({rows})"
    )
    best = (
        f"SELECT *, max(__rank) OVER (PARTITION BY {keys} ORDER BY __from, __rank ROWS UNBOUNDED PRECEDING) AS __best"
        f" FROM ({ranked})"
    )
    return (
        f"SELECT * FROM ({best}) WHERE __rank = __best"
        f" QUALIFY row_number() OVER (PARTITION BY {keys}, __from ORDER BY __rank DESC) = 1"
    )


def as_of(view: View, rows: str) -> str:
    """Return SQL that gives each entity row the last history row with ``__from <= t``."""
    keys = [column.name for column in view.keys]
    columns = names([*_ORIGIN, *(column.name for column in view.features)], "h.")
    return (
        f"SELECT {columns} FROM entity_rows e ASOF LEFT JOIN ({rows}) h"
        f" ON {same_keys(keys, 'e', 'h')} AND e.{TIME} >= h.__from ORDER BY e.{ROW}"
    )


def winners(view: View) -> str:
    """Return SQL for the last row of each key among log rows from a position on; bind files, position."""
    keys = names(column.name for column in view.keys)
    columns = names([*_ORIGIN, *(column.name for column in (*view.keys, *view.features))])
    return (
        f"SELECT {columns} FROM {_log_rows()} WHERE {SEQ} >= ?"
        f" QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {EVENT} DESC, {_created()} DESC, {SEQ} DESC) = 1"
    )


def at_positions(view: View) -> str:
    """Return SQL for the log rows at the positions ``__seq`` of ``entity_rows``, in its order; bind files."""
    columns = names([*_ORIGIN, *(column.name for column in (*view.keys, *view.features))], "h.")
    return (
        f"SELECT {columns} FROM entity_rows e LEFT JOIN {_log_rows()} AS h ON e.{quote(SEQ)} = h.{SEQ} ORDER BY e.{ROW}"
    )


def live_delays(ranges: Sequence[KnownRange]) -> str:
    """Return SQL for the median of publication minus event time over log rows in live ranges; bind files."""
    values = ", ".join(f"({item.first}, {item.last}, {item.ended_us})" for item in ranges)
    return (
        f"SELECT quantile_disc(r.ended_us - log.{EVENT}, 0.5)"
        f" FROM {_log_rows()} AS log ASOF JOIN (VALUES {values}) AS r(first, last, ended_us)"
        f" ON log.{SEQ} >= r.first WHERE log.{SEQ} <= r.last"
    )


def _log_rows() -> str:
    return f"(SELECT * FROM read_parquet(?) WHERE {REJECT} IS NULL)"


def _created() -> str:
    return f"coalesce({CREATED}, {NO_TIME})"


def _ranges_table(ranges: Sequence[KnownRange]) -> pa.Table:
    return pa.table(
        {
            "first": pa.array([item.first for item in ranges], pa.int64()),
            "last": pa.array([item.last for item in ranges], pa.int64()),
            "kind": pa.array([item.kind for item in ranges], pa.string()),
            "ended_us": pa.array([item.ended_us for item in ranges], pa.int64()),
        }
    )


def _starts_table(runs: Sequence[Run]) -> pa.Table:
    return pa.table(
        {
            "run_id": pa.array([run.run_id for run in runs], pa.int64()),
            "started_us": pa.array([run.started_us for run in runs], pa.int64()),
        }
    )
