"""Runs the as-of join: which history row each entity row finds, and the values of those rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from skewless.contract.status import Int64Array
from skewless.infra.offline.as_of import ID, ROW, History, KeyPart, rows_sql, winners_sql
from skewless.infra.offline.sql import quote

NONE = -1
# A narrow row takes about 55 bytes in DuckDB's windows; half of its memory is left to all else.
_BYTES_PER_ROW = 110
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_BATCH_ROWS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class HistoryRows:
    """History rows, each once, and which of them every entity row found.

    Args:
        table: ``__id`` and the columns, in any order.
        at: place in the table, shape ``(n,)``; its length where nothing was found.
    """

    table: pa.Table
    at: Int64Array

    def in_order(self) -> pa.Table:
        """Return one row per entity row, in their order; null where nothing was found."""
        places = pa.array(self.at, mask=self.at == self.table.num_rows)
        columns = self.table.drop_columns([ID])
        # Arrow takes columns one after the other, and lets other threads work meanwhile.
        with ThreadPoolExecutor(pa.cpu_count()) as pool:
            taken = list(pool.map(lambda column: column.take(places), columns.columns))
        return pa.table(taken, schema=columns.schema)


def find(
    connection: duckdb.DuckDBPyConnection,
    history: History,
    parameters: Sequence[object],
    entities: pa.Table,
    history_rows: int,
) -> Int64Array:
    """Return the id of the history row that each entity row finds, shape ``(n,)``; -1: none.

    Memory: 8 bytes per entity row, and about 55 bytes per row of both sides up to half of DuckDB's limit;
    beyond, the keys are done in parts, each of which reads the narrow columns again.

    Args:
        parameters: of the history's relation.
        entities: its keys, of the same types, and ``__t``; in any order, duplicates and nulls allowed.
        history_rows: about how many rows the history has.
    """
    ids = np.full(entities.num_rows, NONE, dtype=np.int64)
    numbered = entities.append_column(ROW, pa.array(np.arange(entities.num_rows, dtype=np.int64)))
    count = 1 + (history_rows + entities.num_rows) * _BYTES_PER_ROW // memory_limit(connection)
    with registered(connection, {"entity_rows": numbered}):
        for number in range(count):
            query = winners_sql(history, "entity_rows", KeyPart(number=number, count=count))
            for batch in connection.sql(query, params=list(parameters)).to_arrow_reader(_BATCH_ROWS):
                ids[batch[ROW].to_numpy()] = batch[ID].to_numpy()
    return ids


class MatchedRows:
    """The history rows that ``find`` found, each of which is read once for some columns at a time.

    Args:
        parameters: of the history's relation.
        ids: what ``find`` returned, shape ``(n,)``.

    Attributes:
        count: how many different rows were found.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        history: History,
        parameters: Sequence[object],
        ids: Int64Array,
    ) -> None:
        self._connection = connection
        self._history = history
        self._parameters = list(parameters)
        distinct, place = np.unique(ids, return_inverse=True)
        self.count = len(distinct) - int(np.searchsorted(distinct, 0))
        self._wanted = distinct[len(distinct) - self.count :]
        # Places count from the first hit: misses come before it.
        self._place = place.astype(np.int64) - (len(distinct) - self.count)

    def rows(self, columns: Sequence[str]) -> HistoryRows:
        """Return columns of the rows."""
        query = rows_sql(self._history, "wanted_rows", columns)
        with registered(self._connection, {"wanted_rows": pa.table({ID: self._wanted})}):
            table = self._connection.sql(query, params=self._parameters).to_arrow_table()
        got = table[ID].to_numpy()
        # The scan runs in threads, so the rows come in any order, in sorted runs.
        order = np.argsort(got, kind="stable")
        if len(got) < self.count:
            order = self._gaps(got, order)
        at = np.append(order, len(got))[np.where(self._place < 0, self.count, self._place)]
        return HistoryRows(table=table, at=at)

    def _gaps(self, got: Int64Array, order: Int64Array) -> Int64Array:
        """Return for each wanted row its place among those that came: only an altered log lacks one."""
        place = np.append(order, len(got))[np.searchsorted(got, self._wanted, sorter=order)]
        return np.where(np.append(got, NONE)[place] == self._wanted, place, len(got))


def fetch(
    connection: duckdb.DuckDBPyConnection,
    history: History,
    parameters: Sequence[object],
    ids: Int64Array,
    columns: Sequence[str],
) -> HistoryRows:
    """Return columns of the rows with the ids that ``find`` returned; each row is read once."""
    return MatchedRows(connection, history, parameters, ids).rows(columns)


def memory_limit(connection: duckdb.DuckDBPyConnection) -> int:
    """Return DuckDB's memory limit in bytes, as it rounds it.

    >>> memory_limit(duckdb.connect(config={"memory_limit": "1GiB"}))
    1073741824
    """
    rows = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    number, unit = str(rows[0][0]).split()
    return int(float(number) * _UNITS[unit])


@contextmanager
def registered(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Table]) -> Iterator[None]:
    """Let SQL read Arrow tables by name for a while."""
    for name, table in tables.items():
        connection.register(name, table)
    try:
        yield
    finally:
        for name in tables:
            connection.unregister(name)


@contextmanager
def copied(connection: duckdb.DuckDBPyConnection, name: str, query: str, parameters: Sequence[Any]) -> Iterator[str]:
    """Copy the rows of a query to a temporary table, which has a ``rowid``, for a while; yield its SQL name."""
    table = quote(name)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {query}", list(parameters))
    try:
        yield table
    finally:
        connection.execute(f"DROP TABLE {table}")
