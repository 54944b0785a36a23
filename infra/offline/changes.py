"""What a source holds that the log does not: the rows that the next materialisation accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from infra.log.accepted import CREATED, EVENT, RAW, REJECT, TOMBSTONE
from infra.offline.sources import Table, broken, check_columns, view_columns
from infra.offline.sql import cast, names, quote, to_microseconds
from skewless.plan import View

FUTURE_SLACK_US = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Window:
    """Which rows to look at, by publication: ``after_us < published <= upto_us``.

    Args:
        after_us: None: everything up to ``upto_us``, rows without a time too.
    """

    after_us: int | None
    upto_us: int

    def condition(self, delay_us: int) -> str:
        """Return the SQL condition over a row's log columns."""
        published = f"coalesce({CREATED}, {EVENT} + {delay_us})"
        if self.after_us is None:
            return f"({published} <= {self.upto_us} OR {published} IS NULL)"
        return f"({published} > {self.after_us} AND {published} <= {self.upto_us})"


def new_rows(
    connection: duckdb.DuckDBPyConnection, view: View, table: Table, window: Window, log_files: Sequence[str]
) -> pa.Table:
    """Return the source's rows in the window that no log file holds, in the order of their acceptance.

    Rows that cannot be accepted come with a reason in ``__reject`` and themselves in ``__raw``.

    Args:
        log_files: the log files that may hold rows of this window.

    Raises:
        SourceError: a file of the source cannot be read, or has another shape than declared.
    """
    types = table.column_types(connection)
    check_columns(table, types, view_columns(view))
    columns = [column.name for column in (*view.keys, *view.features)] + [EVENT, CREATED, TOMBSTONE, REJECT, RAW]
    condition = window.condition(view.delay_us)
    relation = _pruned(view, table.relation, window.after_us)
    fresh = f"SELECT {names(columns)} FROM ({judged_rows(view, types, relation)}) WHERE {condition}"
    parameters: list[list[str]] = [list(table.files)]
    if log_files:
        fresh += f" EXCEPT SELECT {names(columns)} FROM read_parquet(?) WHERE {condition}"
        parameters.append(list(log_files))
    # Every column, so that rows which rank alike get the same order whenever a log is made anew.
    order = names([EVENT, CREATED, TOMBSTONE, *(column.name for column in (*view.keys, *view.features))])
    try:
        ordered = f"SELECT * FROM ({fresh}) ORDER BY {order} NULLS FIRST"
        return connection.sql(ordered, params=parameters).to_arrow_table()
    except duckdb.Error as error:
        raise broken(table.name, error) from error


def next_due(connection: duckdb.DuckDBPyConnection, view: View, table: Table, after_us: int) -> int | None:
    """Return when the next row of a source is published, or None."""
    source = view.source
    event = to_microseconds(quote(source.event_column))
    created = to_microseconds(quote(source.created_column)) if source.created_column else "NULL"
    published = f"coalesce({created}, {event} + {view.delay_us})"
    relation = _pruned(view, table.relation, after_us)
    query = f"SELECT min({published}) FROM {relation} WHERE {published} > {after_us}"
    rows = connection.execute(query, [list(table.files)]).fetchall()
    return rows[0][0] if rows else None


def judged_rows(view: View, types: Mapping[str, str], relation: str) -> str:
    """Return SQL for a source's rows in the plan's types, each with a reason if it must be rejected."""
    source = view.source
    casts = {}
    for column in (*view.keys, *view.features):
        name = source.column(column.name)
        casts[column.name] = (quote(name), cast(quote(name), types.get(name, ""), column.dtype))
    typed = ", ".join(f"{expression} AS {quote(name)}" for name, (_, expression) in casts.items())
    bad = ", ".join(
        f"({raw} IS NOT NULL AND ({expression}) IS NULL) AS {quote(f'__bad_{i}')}"
        for i, (raw, expression) in enumerate(casts.values())
    )
    created = to_microseconds(quote(source.created_column)) if source.created_column else "CAST(NULL AS BIGINT)"
    tombstone = f"coalesce({quote(source.tombstone_column)}, false)" if source.tombstone_column else "false"
    rows = (
        f"SELECT {typed}, {bad}, {to_microseconds(quote(source.event_column))} AS {EVENT},"
        f" {created} AS {CREATED}, {tombstone} AS {TOMBSTONE}, to_json(source_row)::VARCHAR AS __json"
        f" FROM {relation} AS source_row"
    )
    return (
        f"SELECT * REPLACE (coalesce({TOMBSTONE}, false) AS {TOMBSTONE}),"
        f" CASE WHEN {REJECT} IS NOT NULL THEN __json END AS {RAW}"
        f" FROM (SELECT *, {_reason(view, list(casts))} AS {REJECT} FROM ({rows}))"
    )


def _pruned(view: View, relation: str, after_us: int | None) -> str:
    """Return a source without rows that were surely published before, by a condition that file statistics answer."""
    if after_us is None or view.source.created_column:
        return relation
    # One microsecond early: a time in nanoseconds is cut to the microsecond only afterwards.
    earliest = f"make_timestamptz(CAST({after_us - view.delay_us - 1} AS BIGINT))"
    return f"(SELECT * FROM {relation} WHERE {quote(view.source.event_column)} >= {earliest})"


def _reason(view: View, columns: list[str]) -> str:
    cases = [(f"{EVENT} IS NULL", "event time is null")]
    cases += [(f"{quote(key.name)} IS NULL", f"key {key.name!r} is null") for key in view.keys]
    cases += [
        (quote(f"__bad_{i}"), f"column {name!r} does not fit its declared type") for i, name in enumerate(columns)
    ]
    cases.append((f"{EVENT} > {CREATED} + {FUTURE_SLACK_US}", "event time lies after publication"))
    whens = " ".join(f"WHEN {condition} THEN {_text(reason)}" for condition, reason in cases)
    return f"CASE {whens} END"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
