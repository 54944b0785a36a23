"""What a source holds that the log does not: the rows that the next materialisation accepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from skewless.contract.plan import View
from skewless.infra.log.accepted import CREATED, EVENT, RAW, REJECT, TOMBSTONE, due_sql
from skewless.infra.offline.source_columns import NAIVE, NO_ENTITY, check_view
from skewless.infra.offline.sources import ORDER, Table, broken
from skewless.infra.offline.sql import cast, names, quote, text, to_microseconds

# What rows wait for. Nobody calls a row late that happens later, or whose source is declared to be late.
CREATED_LATER = "created time lies in the future"
EVENT_LATER = "event time lies in the future"
DELAYED = "declared delay has not passed"
ORDINARY = frozenset({EVENT_LATER, DELAYED})

_CONTENT = "__content"


@dataclass(frozen=True, kw_only=True)
class EventRange:
    """Which rows to look at, by event time: ``start_us <= event <= end_us``; None: no limit.

    Rows without an event time belong to every range, so that each run says that they are left out.
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
    """Which rows to look at, by when they are due: ``after_us < due <= upto_us``.

    Args:
        after_us: None: everything up to ``upto_us``, rows without a time too.
        events: of these, only rows with such an event time.
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
    """Some files of a source, and which of their rows are looked at.

    Args:
        log_files: the log files that may hold such rows.
    """

    table: Table
    window: Window
    log_files: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The rows of a source that no log file holds.

    Args:
        shares: at least one; every file of the source in at most one of them.
        naive_is_utc: whether times without a zone are accepted, as Feast does.
    """

    view: View
    shares: Sequence[SourceSlice]
    naive_is_utc: bool = False

    def batches(self, connection: duckdb.DuckDBPyConnection, batch_rows: int) -> Iterator[pa.Table]:
        """Yield the rows in the order of their acceptance; the connection is taken until the last one.

        Rows that cannot be accepted come with a reason in ``__reject`` and themselves in ``__raw``. Beyond
        DuckDB's memory limit it spills.

        Raises:
            SourceError: a file of the source cannot be read, or has another shape than declared.
        """
        with self._opened(connection):
            query, parameters = self._query(connection)
            # Of rows that tie, the later in file order gets the greater position, and wins (SEMANTICS 2.1).
            ordered = f"SELECT {names(_columns(self.view))} FROM ({query}) ORDER BY {EVENT}, {CREATED}, {ORDER}"
            for batch in connection.sql(ordered, params=parameters).to_arrow_reader(batch_rows):
                yield pa.Table.from_batches([batch])

    def count(self, connection: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
        """Return how many rows can be accepted, how many cannot, and how many entities the former are about.

        Raises:
            SourceError: as ``batches``.
        """
        with self._opened(connection):
            query, parameters = self._query(connection)
            keys = names(column.name for column in self.view.keys)
            good = f"FILTER (WHERE {REJECT} IS NULL)"
            counted = f"SELECT count(*) {good}, count({REJECT}), count(DISTINCT ({keys})) {good} FROM ({query})"
            ((accepted, rejected, entities),) = connection.sql(counted, params=parameters).fetchall()
        return accepted, rejected, entities

    def _query(self, connection: duckdb.DuckDBPyConnection) -> tuple[str, list[object]]:
        queries, parameters = [], []
        for share in self.shares:
            types = share.table.column_types(connection)
            check_view(share.table.name, types, self.view, naive_is_utc=self.naive_is_utc)
            bounds = _event_bounds(connection, self.view, share, types)
            query, bound = _share_sql(self.view, share, share.table.ordered(connection, types), types, bounds)
            queries.append(f"SELECT * FROM ({query})")
            parameters += bound
        return " UNION ALL ".join(queries), parameters

    @contextmanager
    def _opened(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        table = self.shares[0].table
        try:
            with table.opened(connection):
                yield
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise broken(table.name, error) from error


def _share_sql(
    view: View, share: SourceSlice, ordered: str, types: Mapping[str, str], bounds: tuple[int, int] | None
) -> tuple[str, list[object]]:
    """Return SQL for the rows of a share that the log lacks, with their place in file order, and its parameters."""
    condition = share.window.condition(view.delay_us)
    relation = _pruned(view, types, ordered, share.window.after_us)
    columns = names(_columns(view))
    content = f"SELECT {columns}, hash({columns}) AS {_CONTENT}"
    fresh = f"{content}, {ORDER} FROM ({judged_rows(view, types, relation, [ORDER])}) WHERE {condition}"
    if not share.log_files:
        return fresh, share.table.parameters
    # By key, time and a hash of the rest: what a join of whole rows would hold in memory is wide.
    same = [EVENT, _CONTENT, *(column.name for column in view.keys)]
    near = f" AND ({EVENT} BETWEEN {bounds[0]} AND {bounds[1]} OR {EVENT} IS NULL)" if bounds else ""
    logged = f"SELECT {names(same)} FROM ({content} FROM read_parquet(?) WHERE {condition}{near})"
    equal = " AND ".join(f"n.{quote(name)} IS NOT DISTINCT FROM o.{quote(name)}" for name in same)
    query = f"SELECT * FROM ({fresh}) n ANTI JOIN ({logged}) o ON {equal}"
    return query, [*share.table.parameters, list(share.log_files)]


def _event_bounds(
    connection: duckdb.DuckDBPyConnection, view: View, share: SourceSlice, types: Mapping[str, str]
) -> tuple[int, int] | None:
    """Return the first and last event time of a share, so that the log need not be read beyond; None: unknown."""
    if share.window.after_us is not None or not share.log_files:
        return None
    event, kind = quote(view.source.event_column), types[view.source.event_column]
    first, last = (to_microseconds(f"{end}({event})", kind) for end in ("min", "max"))
    query = f"SELECT {first}, {last} FROM {share.table.relation}"
    ((earliest, latest),) = connection.execute(query, share.table.parameters).fetchall()
    return None if earliest is None else (earliest, latest)


def _columns(view: View) -> list[str]:
    return [column.name for column in (*view.keys, *view.features)] + [EVENT, CREATED, TOMBSTONE, REJECT, RAW]


@dataclass(frozen=True, kw_only=True)
class PendingRows:
    """The rows of a source that are not due yet.

    Args:
        rows: how many, by what they wait for.
        next_us: when the first of them is due; None: there are none.
    """

    rows: Mapping[str, int]
    next_us: int | None


def waiting_rows(
    connection: duckdb.DuckDBPyConnection, view: View, table: Table, after_us: int, events: EventRange | None = None
) -> PendingRows:
    """Return which rows of a source are due later than a moment; ``events``: of these event times alone.

    Raises:
        SourceError: a file of the source cannot be read.
    """
    types = table.column_types(connection)
    moments = f"{_moment(view.source.event_column, types)} AS {EVENT}, {_moment(view.source.created_column, types)}"
    rows = f"SELECT {moments} AS {CREATED} FROM {_pruned(view, types, table.relation, after_us)}"
    reason = (
        f"CASE WHEN {CREATED} > {after_us} THEN '{CREATED_LATER}' WHEN {EVENT} > {after_us} THEN '{EVENT_LATER}'"
        f" ELSE '{DELAYED}' END"
    )
    wanted = "" if events is None else f" AND {events.condition()}"
    due = due_sql(view.delay_us)
    query = (
        f"SELECT {reason}, count(*), min({due}) FROM ({rows}) WHERE {due} > {after_us}{wanted} GROUP BY 1 ORDER BY 1"
    )
    try:
        with table.opened(connection):
            found = connection.execute(query, table.parameters).fetchall()
    except duckdb.Error as error:
        raise broken(table.name, error) from error
    return PendingRows(rows={row[0]: row[1] for row in found}, next_us=min((row[2] for row in found), default=None))


def judged_rows(view: View, types: Mapping[str, str], relation: str, more: Sequence[str] = ()) -> str:
    """Return SQL for a source's rows in the plan's types, each with a reason if it must be rejected.

    Args:
        types: of the source's columns: what a rejected row is kept by.
        more: columns of the relation that are passed on as they are.
    """
    source = view.source
    casts = {}
    for column in (*view.keys, *view.features):
        name = source.column(column.name)
        raw = "''" if column.name == NO_ENTITY else quote(name)
        casts[column.name] = (raw, cast(raw, types.get(name, ""), column.dtype))
    typed = ", ".join(f"{expression} AS {quote(name)}" for name, (_, expression) in casts.items())
    bad = ", ".join(
        f"({raw} IS NOT NULL AND ({expression}) IS NULL) AS {quote(f'__bad_{i}')}"
        for i, (raw, expression) in enumerate(casts.values())
    )
    tombstone = f"coalesce({quote(source.tombstone_column)}, false)" if source.tombstone_column else "false"
    whole = ", ".join(f"{text(name)}: {quote(name)}" for name in types)
    passed = "".join(f", {name}" for name in more)
    rows = (
        f"SELECT {typed}, {bad}, {_moment(source.event_column, types)} AS {EVENT},"
        f" {_moment(source.created_column, types)} AS {CREATED}, {tombstone} AS {TOMBSTONE},"
        f" to_json({{{whole}}})::VARCHAR AS __json{passed}"
        f" FROM {relation}"
    )
    return (
        f"SELECT * REPLACE (coalesce({TOMBSTONE}, false) AS {TOMBSTONE}),"
        f" CASE WHEN {REJECT} IS NOT NULL THEN __json END AS {RAW}"
        f" FROM (SELECT *, {_reason(view, list(casts))} AS {REJECT} FROM ({rows}))"
    )


def _moment(column: str | None, types: Mapping[str, str]) -> str:
    return to_microseconds(quote(column), types.get(column, "")) if column else "CAST(NULL AS BIGINT)"


def _pruned(view: View, types: Mapping[str, str], relation: str, after_us: int | None) -> str:
    """Return a source without rows that were surely published before, by a condition that file statistics answer."""
    if after_us is None or view.source.created_column:
        return relation
    # One microsecond early: a time in nanoseconds is cut to the microsecond only afterwards.
    make = "make_timestamp" if types[view.source.event_column] in NAIVE else "make_timestamptz"
    earliest = f"{make}(CAST({after_us - view.delay_us - 1} AS BIGINT))"
    return f"(SELECT * FROM {relation} WHERE {quote(view.source.event_column)} >= {earliest})"


def _reason(view: View, columns: list[str]) -> str:
    cases = [(f"{EVENT} IS NULL", "event time is null")]
    cases += [(f"{quote(key.name)} IS NULL", f"key {key.name!r} is null") for key in view.keys]
    cases += [
        (quote(f"__bad_{i}"), f"column {name!r} does not fit its declared type") for i, name in enumerate(columns)
    ]
    whens = " ".join(f"WHEN {condition} THEN {text(reason)}" for condition, reason in cases)
    return f"CASE {whens} END"
