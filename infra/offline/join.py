"""The point-in-time join: what each entity's row was at each time, from the accepted log."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from infra.log.accepted import CREATED, EVENT, REJECT, RUN, SEQ, TOMBSTONE, AcceptedLog
from infra.log.known import KnownRange
from infra.offline.arrays import view_read
from infra.offline.sql import names, quote, same_keys
from skewless.plan import View
from skewless.rows import NO_TIME, ViewRead, missing
from skewless.spec import TimeMode

ROW = "__row"
TIME = "__t"
_ORIGIN = (EVENT, CREATED, SEQ, RUN, TOMBSTONE)


class PointInTime:
    """Joins entity rows with the log of a view, in event time or in knowledge time (SEMANTICS 2)."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def join(
        self, view: View, log: AcceptedLog, entities: pa.Table, mode: TimeMode, ranges: Sequence[KnownRange]
    ) -> ViewRead:
        """Return for each entity row the row that a read at its time finds, in the order given.

        Expiry is not judged here: status and ttl have one expression, in ``skewless.status``.

        Args:
            entities: key columns and ``__t`` (int64 microseconds); any order, duplicates kept.
            mode: ``event_time``: the greatest (event, created, pos) with ``event_ts <= t``;
                ``knowledge``: what the online store held at t.
            ranges: when each log position was known; used in knowledge mode.
        """
        files = log.files()
        if not files or not entities.num_rows:
            return missing(view, entities.num_rows, available=True)
        rows = entities.append_column(ROW, pa.array(range(entities.num_rows), pa.int64()))
        self._connection.register("entity_rows", rows)
        self._connection.register("known_ranges", _ranges_table(ranges))
        history = event_history(view) if mode == "event_time" else knowledge_history(view)
        try:
            table = self._connection.execute(as_of(view, history), [files]).to_arrow_table()
        finally:
            self._connection.unregister("entity_rows")
            self._connection.unregister("known_ranges")
        return view_read(table, view)


def event_history(view: View) -> str:
    """Return SQL for a view's rows, one per key and ``event_ts``, each valid from ``event_ts``."""
    keys = names(column.name for column in view.keys)
    return (
        f"SELECT *, {EVENT} AS __from FROM {_log_rows()}"
        f" QUALIFY row_number() OVER (PARTITION BY {keys}, {EVENT}"
        f" ORDER BY {_created()} DESC, {SEQ} DESC) = 1"
    )


def knowledge_history(view: View) -> str:
    """Return SQL for the history of the online store: the running maximum in the order of knowledge."""
    keys = names(column.name for column in view.keys)
    known = (
        f"SELECT log.*, CASE WHEN r.kind = 'live' THEN r.ended_us"
        f" ELSE coalesce({CREATED}, {EVENT} + {view.delay_us}) END AS __from"
        f" FROM {_log_rows()} AS log ASOF JOIN known_ranges r ON log.{SEQ} >= r.first WHERE log.{SEQ} <= r.last"
    )
    ranked = (
        f"SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY {EVENT}, {_created()}, {SEQ}) AS __rank"
        f" FROM ({known})"
    )
    best = (
        f"SELECT *, max(__rank) OVER (PARTITION BY {keys} ORDER BY __from, __rank ROWS UNBOUNDED PRECEDING) AS __best"
        f" FROM ({ranked})"
    )
    return (
        f"SELECT * FROM ({best}) WHERE __rank = __best"
        f" QUALIFY row_number() OVER (PARTITION BY {keys}, __from ORDER BY __rank DESC) = 1"
    )


def as_of(view: View, history: str) -> str:
    """Return SQL that gives each entity row the last history row with ``__from <= t``."""
    keys = [column.name for column in view.keys]
    columns = names([*_ORIGIN, *(column.name for column in view.features)], "h.")
    return (
        f"SELECT {columns} FROM entity_rows e ASOF LEFT JOIN ({history}) h"
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
        f"SELECT {columns} FROM entity_rows e LEFT JOIN {_log_rows()} AS h ON e.{quote(SEQ)} = h.{SEQ}"
        f" ORDER BY e.{ROW}"
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
