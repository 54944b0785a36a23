"""Read the entity rows of a historical request from a data frame, Arrow table, SQL query or time range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import duckdb
import pandas as pd
import pyarrow as pa
from feast.infra.offline_stores.offline_utils import DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL as EVENT_TIMESTAMP
from feast.repo_config import RepoConfig

from skewless.contract.errors import RequestError
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.matched_rows import register_tables
from skewless.infra.reads.offline.sql import quote, to_microseconds
from skewless_feast.feature_history import view_source, view_table
from skewless_feast.requested_features import RequestedView
from skewless_feast.stored_views import is_windowed

_TABLE = "entity_df"


@dataclass(frozen=True, kw_only=True)
class EntityRows:
    """The entity rows of a request.

    Args:
        table: all columns, unchanged; they are also the first columns of the result.
        time: name of the time column.
        types: DuckDB's type of each column.
    """

    table: pa.Table
    time: str
    types: dict[str, str]

    def select_keys(self, connection: duckdb.DuckDBPyConnection, keys: dict[str, str]) -> pa.Table:
        """Return keys and ``__t`` (int64 microseconds, floored) of each row, in order.

        Args:
            keys: column -> SQL expression on the entity rows.
        """
        time_sql = to_microseconds(quote(self.time), self.types[self.time])
        parts = [*(f"{expression} AS {quote(name)}" for name, expression in keys.items()), f"{time_sql} AS {TIME}"]
        # DuckDB reads only these columns, so other columns may have any type.
        required = [name for name in self.table.column_names if name == self.time or name in keys]
        with register_tables(connection, {_TABLE: self.table.select(required)}):
            return connection.sql(f"SELECT {', '.join(parts)} FROM {_TABLE}").to_arrow_table()


def read_entities(connection: duckdb.DuckDBPyConnection, rows: pd.DataFrame | pa.Table) -> EntityRows:
    """Return the entity rows of a data frame or an Arrow table.

    Raises:
        RequestError: a column has values of several types, or the time column is missing.
    """
    table = rows if isinstance(rows, pa.Table) else _from_pandas(rows)
    # One column at a time: names may differ only in case, which SQL ignores.
    types = {field.name: _sql_type(connection, field.type) for field in table.schema}
    return EntityRows(table=table, time=_time_column(types), types=types)


def query_entities(
    config: RepoConfig, connection: duckdb.DuckDBPyConnection, views: Sequence[RequestedView], query: str
) -> EntityRows:
    """Return the entity rows of a SQL query, which may read the sources of views.

    Raises:
        RequestError: DuckDB rejects the query, or the time column is missing.
    """
    with _source_views(config, connection, views):
        try:
            table = connection.sql(query.strip().rstrip(";")).to_arrow_table()
        except duckdb.Error as error:
            raise RequestError(
                "entity query", f"cannot be run: {str(error).splitlines()[0]}", fix="correct the SQL of entity_df"
            ) from error
    return read_entities(connection, table)


@contextmanager
def _source_views(
    config: RepoConfig, connection: duckdb.DuckDBPyConnection, views: Sequence[RequestedView]
) -> Iterator[None]:
    """Make each view's source readable by SQL under the names of the view and of the source, within the block.

    Windowed views are skipped: they have no table.
    """
    views = [requested for requested in views if not is_windowed(requested.view)]
    named: dict[str, str] = {}
    with ExitStack() as stack:
        for requested in views:
            table = view_table(config, requested.view)
            stack.enter_context(table.open(connection))
            # A view cannot have bound parameters, so the file names are literals.
            named |= dict.fromkeys((requested.view.batch_source.name, requested.view.name), table.literal)
        for name, relation in named.items():
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS SELECT * FROM {relation}")
        try:
            yield
        finally:
            for name in named:
                connection.execute(f"DROP VIEW IF EXISTS {quote(name)}")


def _sql_type(connection: duckdb.DuckDBPyConnection, kind: pa.DataType) -> str:
    """Return DuckDB's type for an Arrow type; empty if DuckDB does not support it."""
    try:
        with register_tables(connection, {_TABLE: pa.table({"x": pa.nulls(0, kind)})}):
            rows = connection.execute(f"DESCRIBE SELECT x FROM {_TABLE}").fetchall()
    except (duckdb.Error, pa.ArrowException):
        return ""
    return str(rows[0][1])


def _from_pandas(frame: pd.DataFrame) -> pa.Table:
    frame = frame.copy(deep=False)
    if EVENT_TIMESTAMP in frame.columns and frame[EVENT_TIMESTAMP].dtype == object:
        frame[EVENT_TIMESTAMP] = pd.to_datetime(frame[EVENT_TIMESTAMP], utc=True)
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise RequestError(
            "entity rows", f"cannot be read: {error}", fix="give each column a unique name and values of one type"
        ) from error


def _time_column(types: dict[str, str]) -> str:
    times = [name for name, kind in types.items() if kind.startswith("TIMESTAMP")]
    if EVENT_TIMESTAMP in times:
        return EVENT_TIMESTAMP
    if EVENT_TIMESTAMP not in types and len(times) == 1:
        return times[0]
    raise RequestError(
        "entity rows",
        f"have no time column, or several without {EVENT_TIMESTAMP}",
        value=types.get(EVENT_TIMESTAMP) or ", ".join(times) or None,
        fix=f"add {EVENT_TIMESTAMP} as a timestamp, best with zone UTC",
    )


def range_entities(
    config: RepoConfig, connection: duckdb.DuckDBPyConnection, views: Sequence[RequestedView], start: int, end: int
) -> EntityRows:
    """Return one row, at the end of a time range, for each key in that range of the views' sources or event logs.

    Views with different keys add separate rows, in which the other keys are null.

    Args:
        start, end: first and last event time of the range, microseconds.
    """
    end_time = pa.array([end], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    keyed = [requested for requested in views if requested.view.entity_columns]
    if not keyed:
        return read_entities(connection, pa.table({EVENT_TIMESTAMP: end_time}))
    tables = [_read_keys(config, connection, requested, start, end) for requested in keyed]
    rows = pa.concat_tables(tables, promote_options="permissive")
    distinct = rows.group_by(rows.column_names, use_threads=False).aggregate([])
    # DuckDB returns the keys in any order; the same request must give the same rows.
    distinct = distinct.sort_by([(name, "ascending") for name in distinct.column_names])
    ends = pa.repeat(end_time[0], distinct.num_rows)
    return read_entities(connection, distinct.append_column(EVENT_TIMESTAMP, ends))


def _read_keys(
    config: RepoConfig, connection: duckdb.DuckDBPyConnection, requested: RequestedView, start: int, end: int
) -> pa.Table:
    view = requested.view
    if is_windowed(view):
        from skewless_feast.window_history import read_window_keys  # noqa: PLC0415 - for projects with windows only

        return read_window_keys(config, connection, requested, start, end)
    source = view_source(config, connection, view)
    names = {
        view.projection.join_key_map.get(column.name, column.name): source.key_sql(column.name)
        for column in view.entity_columns
    }
    keys = [f"{expression} AS {quote(name)}" for name, expression in names.items()]
    time_sql = source.time_sql(view.batch_source.timestamp_field)
    conditions = [
        f"{time_sql} BETWEEN {start} AND {end}",
        *(f"{expression} IS NOT NULL" for expression in names.values()),
    ]
    query = f"SELECT DISTINCT {', '.join(keys)} FROM {source.table.relation} WHERE {' AND '.join(conditions)}"
    with source.table.open(connection):
        return connection.sql(query, params=source.table.parameters).to_arrow_table()
