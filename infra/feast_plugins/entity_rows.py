"""The entity rows of a historical request, whatever form they come in, as one Arrow table."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pandas as pd
import pyarrow as pa
from feast.infra.offline_stores.offline_utils import DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL as EVENT_TIMESTAMP

from skewless.contract.errors import RequestError
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.sql import quote, to_microseconds
from skewless.infra.offline.winners import registered

_TABLE = "entity_df"


@dataclass(frozen=True, kw_only=True)
class EntityRows:
    """What a request asks about.

    Args:
        table: the columns as they were given; they are also the first of the answer.
        time: the column that says as of when.
        types: DuckDB's type of each column.
    """

    table: pa.Table
    time: str
    types: dict[str, str]

    def joinable(self, connection: duckdb.DuckDBPyConnection, keys: dict[str, str]) -> pa.Table:
        """Return keys and ``__t`` (int64 microseconds, floored) of each row, in order.

        Args:
            keys: column -> SQL over the entity rows.
        """
        moment = to_microseconds(quote(self.time), self.types[self.time])
        parts = [*(f"{expression} AS {quote(name)}" for name, expression in keys.items()), f"{moment} AS {TIME}"]
        # Only what is named is read, so a payload of any type passes untouched.
        needed = [name for name in self.table.column_names if name == self.time or name in keys]
        with registered(connection, {_TABLE: self.table.select(needed)}):
            return connection.sql(f"SELECT {', '.join(parts)} FROM {_TABLE}").to_arrow_table()


def read_entities(connection: duckdb.DuckDBPyConnection, given: pd.DataFrame | pa.Table) -> EntityRows:
    """Return entity rows that were given as a data frame or an Arrow table.

    Raises:
        RequestError: a column holds values of several types, or none says when.
    """
    table = given if isinstance(given, pa.Table) else _from_pandas(given)
    types = _sql_types(connection, table.schema)
    return EntityRows(table=table, time=_time_column(types), types=types)


def query_entities(connection: duckdb.DuckDBPyConnection, query: str) -> EntityRows:
    """Return the entity rows of a SQL query.

    Raises:
        RequestError: DuckDB refuses the query, or no column says when.
    """
    try:
        table = connection.sql(query.strip().rstrip(";")).to_arrow_table()
    except duckdb.Error as error:
        raise RequestError(
            "entity query", f"cannot be run: {str(error).splitlines()[0]}", fix="correct the SQL of entity_df"
        ) from error
    return read_entities(connection, table)


def _sql_types(connection: duckdb.DuckDBPyConnection, schema: pa.Schema) -> dict[str, str]:
    """Return DuckDB's type of each column, empty where it has none: such a column can be payload only."""
    # One by one, since names may differ only in case, which SQL does not tell apart.
    return {field.name: _sql_type(connection, field.type) for field in schema}


def _sql_type(connection: duckdb.DuckDBPyConnection, kind: pa.DataType) -> str:
    try:
        with registered(connection, {_TABLE: pa.table({"x": pa.nulls(0, kind)})}):
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
            "entity rows", f"cannot be read: {error}", fix="give each column a name of its own and values of one type"
        ) from error


def _time_column(types: dict[str, str]) -> str:
    times = [name for name, kind in types.items() if kind.startswith("TIMESTAMP")]
    if EVENT_TIMESTAMP in times:
        return EVENT_TIMESTAMP
    if EVENT_TIMESTAMP not in types and len(times) == 1:
        return times[0]
    raise RequestError(
        "entity rows",
        f"need one column of times, named {EVENT_TIMESTAMP} where there are more",
        value=types.get(EVENT_TIMESTAMP) or ", ".join(times) or None,
        fix=f"add {EVENT_TIMESTAMP} as a timestamp, best with zone UTC",
    )
