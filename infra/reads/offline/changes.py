"""Find the rows of a source that are not in the log: the next materialization accepts them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from skewless.contract.dtypes import DType
from skewless.contract.plan import View
from skewless.infra.log.log_columns import CREATED, EVENT, RAW, REJECT, TOMBSTONE, due_sql
from skewless.infra.reads.offline.source_columns import NAIVE, NO_ENTITY, check_view
from skewless.infra.reads.offline.sources import ORDER, Table
from skewless.infra.reads.offline.sql import cast_sql, quote, quote_all, sql_literal, to_microseconds

# Why a row is not due yet. The last two are ordinary: no problem of the data.
CREATED_LATER = "created time lies in the future"
EVENT_LATER = "event time lies in the future"
DELAYED = "declared delay has not passed"
ORDINARY = frozenset({EVENT_LATER, DELAYED})

_CONTENT = "__content"


@dataclass(frozen=True, kw_only=True)
class EventRange:
    """A range of event times: ``start_us <= event <= end_us``; None: no limit.

    Rows without an event time belong to every range, so that each run reports them as skipped.
    """

    start_us: int | None = None
    end_us: int | None = None

    def condition(self) -> str:
        """Return the SQL condition over a row's log columns."""
        limits = [(">=", self.start_us), ("<=", self.end_us)]
        within = " AND ".join(f"{EVENT} {sign} {limit}" for sign, limit in limits if limit is not None)
        return f"({EVENT} IS NULL OR {within or 'true'})"


@dataclass(frozen=True, kw_only=True)
class Window:
    """A range of due times: ``after_us < due <= upto_us``.

    Args:
        after_us: None: all rows up to ``upto_us``, also rows without a time.
        events: a further limit on event times.
    """

    after_us: int | None
    upto_us: int
    events: EventRange | None = None

    def condition(self, delay_us: int) -> str:
        """Return the SQL condition over a row's log columns."""
        due = due_sql(delay_us)
        if self.after_us is None:
            condition = f"({due} <= {self.upto_us} OR {due} IS NULL)"
        else:
            condition = f"({due} > {self.after_us} AND {due} <= {self.upto_us})"
        return condition if self.events is None else f"{condition} AND {self.events.condition()}"


@dataclass(frozen=True, kw_only=True)
class SourceSlice:
    """Some files of a source, and the range of their rows to compare with the log.

    Args:
        table: the files.
        window: the due times of the rows.
        log_files: log files that may contain such rows.
    """

    table: Table
    window: Window
    log_files: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class NewRows:
    """The rows of a source that are not in the log.

    Args:
        slices: at least one slice; each file of the source is in at most one of them.
        naive_is_utc: whether to accept times without a zone, as Feast does.
    """

    view: View
    slices: Sequence[SourceSlice]
    naive_is_utc: bool = False

    def batches(self, connection: duckdb.DuckDBPyConnection, batch_rows: int) -> Iterator[pa.Table]:
        """Yield the rows in the order of the log; the connection is in use until the last row.

        A rejected row has a reason in ``__reject`` and its JSON in ``__raw``. Beyond DuckDB's memory limit, the query
        spills to disk.

        Raises:
            SourceError: a file of the source cannot be read, or has another shape than declared.
        """
        with self.slices[0].table.reading(connection):
            query, parameters = self._query(connection)
            # Among equal rows, the later in file order gets the greater position, and so wins (SEMANTICS 2.1).
            ordered = f"SELECT {quote_all(_columns(self.view))} FROM ({query}) ORDER BY {EVENT}, {CREATED}, {ORDER}"
            for batch in connection.sql(ordered, params=parameters).to_arrow_reader(batch_rows):
                yield pa.Table.from_batches([batch])

    def count(self, connection: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
        """Return the numbers of accepted rows, of rejected rows, and of entities with accepted rows.

        Raises:
            SourceError: as ``batches``.
        """
        with self.slices[0].table.reading(connection):
            query, parameters = self._query(connection)
            keys = quote_all(column.name for column in self.view.keys)
            good = f"FILTER (WHERE {REJECT} IS NULL)"
            counted = f"SELECT count(*) {good}, count({REJECT}), count(DISTINCT ({keys})) {good} FROM ({query})"
            ((accepted, rejected, entities),) = connection.sql(counted, params=parameters).fetchall()
        return accepted, rejected, entities

    def _query(self, connection: duckdb.DuckDBPyConnection) -> tuple[str, list[object]]:
        queries, parameters = [], []
        for part in self.slices:
            types = part.table.column_types(connection)
            check_view(part.table.name, types, self.view, naive_is_utc=self.naive_is_utc)
            bounds = _event_bounds(connection, self.view, part, types)
            query, values = _slice_sql(self.view, part, part.table.ordered_sql(connection, types), types, bounds)
            # Slices may have different files and due times, but the same columns.
            queries.append(f"SELECT * FROM ({query})")
            parameters += values
        return " UNION ALL ".join(queries), parameters


def _slice_sql(
    view: View, part: SourceSlice, ordered: str, types: Mapping[str, str], bounds: tuple[int, int] | None
) -> tuple[str, list[object]]:
    """Return SQL for the rows of a slice that are not in the log, with their file order, and its parameters."""
    condition = part.window.condition(view.delay_us)
    relation = _pruned_sql(view, types, ordered, part.window.after_us)
    columns = quote_all(_columns(view))
    content = f"SELECT {columns}, hash({columns}) AS {_CONTENT}"
    fresh = f"{content}, {ORDER} FROM ({checked_rows_sql(view, types, relation, [ORDER])}) WHERE {condition}"
    if not part.log_files:
        return fresh, part.table.parameters
    # Compare key, time and a hash of the row: a join on all columns would need much more memory.
    same = [EVENT, _CONTENT, *(column.name for column in view.keys)]
    near = f" AND ({EVENT} BETWEEN {bounds[0]} AND {bounds[1]} OR {EVENT} IS NULL)" if bounds else ""
    logged = f"SELECT {quote_all(same)} FROM ({content} FROM read_parquet(?) WHERE {condition}{near})"
    # Null equals null here. Otherwise a rejected row with a null key or time would be logged again by every run.
    equal = " AND ".join(f"n.{quote(name)} IS NOT DISTINCT FROM o.{quote(name)}" for name in same)
    query = f"SELECT * FROM ({fresh}) n ANTI JOIN ({logged}) o ON {equal}"
    return query, [*part.table.parameters, list(part.log_files)]


def _event_bounds(
    connection: duckdb.DuckDBPyConnection, view: View, part: SourceSlice, types: Mapping[str, str]
) -> tuple[int, int] | None:
    """Return the first and last event time of a slice, which limit the read of the log; None: unknown."""
    # Only a comparison with the whole log needs these bounds; otherwise due times limit the read already.
    if part.window.after_us is not None or not part.log_files:
        return None
    event, kind = quote(view.source.event_column), types[view.source.event_column]
    first, last = (to_microseconds(f"{end}({event})", kind) for end in ("min", "max"))
    query = f"SELECT {first}, {last} FROM {part.table.relation}"
    ((earliest, latest),) = connection.execute(query, part.table.parameters).fetchall()
    return None if earliest is None else (earliest, latest)


def _columns(view: View) -> list[str]:
    return [column.name for column in (*view.keys, *view.features)] + [EVENT, CREATED, TOMBSTONE, REJECT, RAW]


@dataclass(frozen=True, kw_only=True)
class PendingRows:
    """The rows of a source that are not due yet.

    Args:
        rows: number of rows by reason.
        next_us: when the first of them is due; None: no rows.
    """

    rows: Mapping[str, int]
    next_us: int | None


def read_pending(
    connection: duckdb.DuckDBPyConnection, view: View, table: Table, after_us: int, events: EventRange | None = None
) -> PendingRows:
    """Return the rows of a source that are due after a time; ``events`` limits their event times.

    Raises:
        SourceError: a file of the source cannot be read.
    """
    types = table.column_types(connection)
    times = f"{_time_sql(view.source.event_column, types)} AS {EVENT}, {_time_sql(view.source.created_column, types)}"
    rows = f"SELECT {times} AS {CREATED} FROM {_pruned_sql(view, types, table.relation, after_us)}"
    # The order matters: a created time in the future is the only reason that `strict` refuses, so it is named first.
    reason = (
        f"CASE WHEN {CREATED} > {after_us} THEN '{CREATED_LATER}' WHEN {EVENT} > {after_us} THEN '{EVENT_LATER}'"
        f" ELSE '{DELAYED}' END"
    )
    range_condition = "" if events is None else f" AND {events.condition()}"
    due = due_sql(view.delay_us)
    query = (
        f"SELECT {reason}, count(*), min({due}) FROM ({rows}) WHERE {due} > {after_us}{range_condition}"
        " GROUP BY 1 ORDER BY 1"
    )
    with table.reading(connection):
        reasons = connection.execute(query, table.parameters).fetchall()
    return PendingRows(
        rows={reason: count for reason, count, _ in reasons}, next_us=min((due for _, _, due in reasons), default=None)
    )


def count_matching(
    connection: duckdb.DuckDBPyConnection, table: Table, columns: Sequence[tuple[str, DType, object]]
) -> int:
    """Return the number of rows of a table with some values; 0 if it lacks a column.

    Args:
        columns: name, type and value of each column.

    Raises:
        SourceError: a file of the table cannot be read.
    """
    types = table.column_types(connection)
    if any(name not in types for name, _, _ in columns):
        return 0
    condition = " AND ".join(f"{cast_sql(quote(name), types[name], dtype)} = ?" for name, dtype, _ in columns)
    query = f"SELECT count(*) FROM {table.relation} WHERE {condition}"
    with table.reading(connection):
        parameters = [*table.parameters, *(value for _, _, value in columns)]
        return int(connection.execute(query, parameters).fetchall()[0][0])


def checked_rows_sql(view: View, types: Mapping[str, str], relation: str, more: Sequence[str] = ()) -> str:
    """Return SQL for a source's rows in the plan's types, each with the reason if it is rejected.

    Args:
        types: types of the source's columns; the JSON of a rejected row has all of them.
        more: further columns of the relation, passed on unchanged.
    """
    source = view.source
    casts = {}
    for column in (*view.keys, *view.features):
        name = source.column(column.name)
        raw = "''" if column.name == NO_ENTITY else quote(name)
        casts[column.name] = (raw, cast_sql(raw, types.get(name, ""), column.dtype))
    typed = ", ".join(f"{expression} AS {quote(name)}" for name, (_, expression) in casts.items())
    # A cast that gives null has lost the value. The row is rejected: null would be served as if nothing had been
    # written.
    cast_columns = {name: cast for name, cast in casts.items() if cast[0] != cast[1]}
    bad = "".join(
        f", ({raw} IS NOT NULL AND ({expression}) IS NULL) AS {quote(f'__bad_{name}')}"
        for name, (raw, expression) in cast_columns.items()
    )
    tombstone = f"coalesce({quote(source.tombstone_column)}, false)" if source.tombstone_column else "false"
    all_columns = ", ".join(f"{sql_literal(name)}: {quote(name)}" for name in types)
    passed = "".join(f", {name}" for name in more)
    rows = (
        f"SELECT {typed}{bad}, {_time_sql(source.event_column, types)} AS {EVENT},"
        f" {_time_sql(source.created_column, types)} AS {CREATED}, {tombstone} AS {TOMBSTONE},"
        f" {{{all_columns}}} AS __source{passed}"
        f" FROM {relation}"
    )
    # Within CASE, DuckDB writes the JSON of the rejected rows only; as a column of the subquery, of all rows.
    return (
        f"SELECT * REPLACE (coalesce({TOMBSTONE}, false) AS {TOMBSTONE}),"
        f" CASE WHEN {REJECT} IS NOT NULL THEN to_json(__source)::VARCHAR END AS {RAW}"
        f" FROM (SELECT *, {_reason_sql(view, list(cast_columns))} AS {REJECT} FROM ({rows}))"
    )


def _time_sql(column: str | None, types: Mapping[str, str]) -> str:
    return to_microseconds(quote(column), types.get(column, "")) if column else "CAST(NULL AS BIGINT)"


def _pruned_sql(view: View, types: Mapping[str, str], relation: str, after_us: int | None) -> str:
    """Return a source without rows that certainly were due before, by a condition that uses file statistics."""
    if after_us is None or view.source.created_column:
        return relation
    # One microsecond earlier: a time in nanoseconds is floored to the microsecond only later.
    make = "make_timestamp" if types[view.source.event_column] in NAIVE else "make_timestamptz"
    earliest = f"{make}(CAST({after_us - view.delay_us - 1} AS BIGINT))"
    return f"(SELECT * FROM {relation} WHERE {quote(view.source.event_column)} >= {earliest})"


def _reason_sql(view: View, columns: list[str]) -> str:
    cases = [(f"{EVENT} IS NULL", "event time is null")]
    cases += [(f"{quote(key.name)} IS NULL", f"key {key.name!r} is null") for key in view.keys]
    cases += [(quote(f"__bad_{name}"), f"column {name!r} does not fit its declared type") for name in columns]
    whens = " ".join(f"WHEN {condition} THEN {sql_literal(reason)}" for condition, reason in cases)
    return f"CASE {whens} END"
