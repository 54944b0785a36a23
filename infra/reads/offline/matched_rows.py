"""Run the as-of join: find the history row of each entity row, then fetch columns of these rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import find_nulls, int64_array, numbers
from skewless.contract.status import BoolArray, Int64Array
from skewless.infra.reads.offline.as_of import ID, ROW, History, KeyPart, rows_sql, winners_sql
from skewless.infra.reads.offline.engine import read_memory_limit
from skewless.infra.reads.offline.sql import quote

if TYPE_CHECKING:
    import duckdb

NONE = -1
# A narrow row takes about 55 bytes in DuckDB's windows; half of the memory stays free for other work.
_BYTES_PER_ROW = 110
_BATCH_ROWS = 1_000_000
_SPARSE = 4  # ids up to this many times their number are marked in an array
_WIDTHS = frozenset({8, 16, 32, 64})  # bits of the numbers that numpy takes


@dataclass(frozen=True, kw_only=True)
class HistoryRows:
    """Distinct history rows, and the row that each entity row matched.

    Args:
        table: ``__id`` and the columns, in any order.
        at: for each entity row, the row number in the table, shape ``(n,)``; the table's length without a match.
    """

    table: pa.Table
    at: Int64Array

    def in_order(self) -> pa.Table:
        """Return one row per entity row, in their order; null without a match."""
        columns = self.table.drop_columns([ID])
        take = partial(_take, at=self.at, is_match=self.at < columns.num_rows)
        # One column after another, but numpy and Arrow release the GIL: threads take several at once.
        with ThreadPoolExecutor(pa.cpu_count()) as pool:
            return pa.table(list(pool.map(take, columns.columns)), schema=columns.schema)


def find_rows(
    connection: duckdb.DuckDBPyConnection,
    history: History,
    parameters: Sequence[object],
    entities: pa.Table,
    history_rows: int,
) -> Int64Array:
    """Return the id of the history row that each entity row matches, shape ``(n,)``; -1: none.

    Memory: 8 bytes per entity row, and about 55 bytes per row of both sides, up to half of DuckDB's limit. Beyond the
    limit, the join runs in parts by key, each of which reads the narrow columns again.

    Args:
        parameters: parameters of the history's relation.
        entities: the history's keys, of the same types, and ``__t``, in any order, with duplicates and nulls.
        history_rows: approximate number of rows of the history.
    """
    ids = np.full(entities.num_rows, NONE, dtype=np.int64)
    numbered = entities.append_column(ROW, int64_array(np.arange(entities.num_rows)))
    count = 1 + (history_rows + entities.num_rows) * _BYTES_PER_ROW // read_memory_limit(connection)
    with register_tables(connection, {"entity_rows": numbered}):
        for number in range(count):
            query = winners_sql(history, "entity_rows", KeyPart(number=number, count=count))
            # Streamed, so that only the ids of all entity rows are in memory. A row without a match is in no batch.
            for batch in connection.sql(query, params=list(parameters)).to_arrow_reader(_BATCH_ROWS):
                ids[numbers(batch[ROW])] = numbers(batch[ID])
    return ids


def _take(column: pa.ChunkedArray, at: Int64Array, is_match: BoolArray) -> pa.Array:
    """Return the values at row numbers; null without a match."""
    rows, kind = column.combine_chunks(), column.type
    if not (len(rows) and pa.types.is_primitive(kind) and kind.bit_width in _WIDTHS):
        return rows.take(int64_array(at, ~is_match))
    # Arrow's own kernel is four times as slow when values or row numbers have nulls.
    values = np.frombuffer(rows.buffers()[1], f"u{kind.bit_width // 8}", rows.offset + len(rows))[rows.offset :]
    is_valid = is_match & ~find_nulls(rows).take(at, mode="clip") if rows.null_count else is_match
    validity = pa.py_buffer(np.packbits(is_valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(at), [validity, pa.py_buffer(values.take(at, mode="clip"))])


class MatchedRows:
    """The history rows that ``find_rows`` matched; reads some columns at a time, each row once.

    Args:
        parameters: parameters of the history's relation.
        ids: the result of ``find_rows``, shape ``(n,)``.

    Attributes:
        count: number of distinct matched rows.
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
        self._ids, self._place = _number_ids(ids)
        self.count = len(self._ids)

    def rows(self, columns: Sequence[str]) -> HistoryRows:
        """Return columns of the rows."""
        query = rows_sql(self._history, "matched_ids", columns)
        with register_tables(self._connection, {"matched_ids": pa.table([int64_array(self._ids)], names=[ID])}):
            table = self._connection.sql(query, params=self._parameters).to_arrow_table()
        read = numbers(table[ID])
        # DuckDB scans with several threads, so the rows come in any order, in sorted runs.
        order = np.argsort(read, kind="stable")
        if len(read) < self.count:
            order = self._fill_gaps(read, order)
        # The appended entry is the row number of "no match".
        at = np.append(order, len(read))[np.where(self._place < 0, self.count, self._place)]
        return HistoryRows(table=table, at=at)

    def _fill_gaps(self, read: Int64Array, order: Int64Array) -> Int64Array:
        """Return for each matched id its row number among the read rows; only an altered log has missing rows."""
        number = np.append(order, len(read))[np.searchsorted(read, self._ids, sorter=order)]
        return np.where(np.append(read, NONE)[number] == self._ids, number, len(read))


def _number_ids(ids: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the distinct ids in ascending order without -1, and for each id its number among them; -1 for -1."""
    end = int(ids.max(initial=NONE)) + 1
    if end > _SPARSE * len(ids):
        distinct, place = np.unique(ids, return_inverse=True)
        n_missing = int(np.searchsorted(distinct, 0))
        return distinct[n_missing:], place.astype(np.int64) - n_missing
    # Positions are mostly dense: marking them is faster than sorting them. The last place is that of -1.
    is_used = np.zeros(end + 1, dtype=np.bool_)
    is_used[ids] = True
    is_used[end] = False
    distinct = np.flatnonzero(is_used)
    numbers_of = np.full(end + 1, NONE, dtype=np.int64)
    numbers_of[distinct] = np.arange(len(distinct))
    return distinct, numbers_of[ids]


def fetch_rows(
    connection: duckdb.DuckDBPyConnection,
    history: History,
    parameters: Sequence[object],
    ids: Int64Array,
    columns: Sequence[str],
) -> HistoryRows:
    """Return columns of the history rows with the ids from ``find_rows``; each row is read once."""
    return MatchedRows(connection, history, parameters, ids).rows(columns)


@contextmanager
def register_tables(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Table]) -> Iterator[None]:
    """Make Arrow tables available to SQL by name within the block."""
    for name, table in tables.items():
        connection.register(name, table)
    try:
        yield
    finally:
        for name in tables:
            connection.unregister(name)


@contextmanager
def copy_to_table(
    connection: duckdb.DuckDBPyConnection, name: str, query: str, parameters: Sequence[Any]
) -> Iterator[str]:
    """Copy the rows of a query to a temporary table, which has a ``rowid``, within the block; yield its SQL name."""
    table = quote(name)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {query}", list(parameters))
    try:
        yield table
    finally:
        connection.execute(f"DROP TABLE {table}")
