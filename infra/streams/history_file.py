"""One file of the history of an event source: its rows typed, in the order in which they stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.windows.view import EventSource
from skewless.infra.log.accepted import REJECT
from skewless.infra.log.event_log import EventLog
from skewless.infra.log.event_rows import EVENT_ID
from skewless.infra.log.partitions import log_partitions
from skewless.infra.offline.matched_rows import copy_to_table
from skewless.infra.offline.source_columns import check_columns
from skewless.infra.offline.sources import Table, find_table
from skewless.infra.offline.sql import cast_sql, quote
from skewless.infra.offline.window_events import read_column_names
from skewless.infra.streams.row_digest import RowDigest

KNOWN, SEVERAL = 1, 2
_IDS = "import_ids"


@dataclass(frozen=True, kw_only=True)
class HistoryFile:
    """One file; the connection must not be used for anything else while its rows are read.

    Args:
        name: path relative to the project where it lies in there, else absolute.
    """

    name: str
    path: Path
    table: Table
    source: EventSource
    connection: duckdb.DuckDBPyConnection

    def count(self, condition: str = "true") -> int:
        """Return how many rows it has that meet a condition in SQL."""
        with self.table.open(self.connection):
            query = f"SELECT count(*) FROM {self.table.relation} WHERE {condition}"
            return int(self.connection.execute(query, self.table.parameters).fetchall()[0][0])

    def has(self, columns: Sequence[Column]) -> bool:
        """Say whether the file has columns of these names."""
        types = self.table.column_types(self.connection)
        return all(column.name in types for column in columns)

    def rows(self, columns: Sequence[Column], size: int, first: int = 0, last: int | None = None) -> Iterator[pa.Table]:
        """Yield rows in order, at most ``size`` at a time; a value that does not fit its type is null.

        Args:
            first, last: of the rows, both included; None: to the end.
        """
        types = self.table.column_types(self.connection)
        listed = ", ".join(
            f"{cast_sql(quote(column.name), types[column.name], column.dtype)} AS {quote(column.name)}"
            for column in columns
        )
        limit = "" if last is None else f" LIMIT {last + 1 - first}"
        with self.table.open(self.connection):
            query = f"SELECT {listed} FROM {self.table.relation}{limit} OFFSET {first}"
            with self.connection.sql(query, params=self.table.parameters).to_arrow_reader(size) as reader:
                for batch in reader:
                    if batch.num_rows:
                        yield pa.Table.from_batches([batch])

    def digests(self, columns: Sequence[Column], size: int, counts: Sequence[int]) -> Iterator[RowDigest]:
        """Yield the digest of the first rows, for each of some growing numbers of rows."""
        digest = RowDigest(columns)
        wanted = list(counts)
        while wanted and wanted[0] == 0:
            yield digest.copy()
            wanted.pop(0)
        if not wanted:
            return
        for rows in self.rows(columns, size, last=wanted[-1] - 1):
            start = digest.rows
            while wanted and wanted[0] <= start + rows.num_rows:
                digest.update(rows.slice(digest.rows - start, wanted.pop(0) - digest.rows))
                yield digest.copy()
            digest.update(rows.slice(digest.rows - start))

    def nameless(self, column: str) -> int:
        """Return how many rows have no event id."""
        return self.count(f"{self._id(column)} IS NULL")

    def repeats(self, column: str, first: int, log_root: Path) -> npt.NDArray[np.uint8]:
        """Return of each row from a number on ``KNOWN`` where the log has its event id, ``SEVERAL`` where another has.

        Memory: DuckDB's limit, beyond which it spills, and a byte for each row.
        """
        rows = f"SELECT {self._id(column)} AS id FROM {self.table.relation} OFFSET {first}"
        numbered = f"SELECT row_number() OVER () - 1 AS place, id FROM ({rows})"
        parameters = self.table.parameters
        with self.table.open(self.connection), copy_to_table(self.connection, _IDS, numbered, parameters) as ids:
            counted = self.connection.execute(f"SELECT count(*) FROM {ids}").fetchall()[0][0]
            found = np.zeros(int(counted), dtype=np.uint8)
            several = f"SELECT id FROM {ids} WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1"
            self._mark(found, SEVERAL, f"SELECT place FROM {ids} SEMI JOIN ({several}) USING (id)", [])
            logs = [EventLog(log_root, name) for name in log_partitions(log_root, self.source.name)]
            files = [file for log in logs for file in log.files()]
            if files:
                # Also of rows that were logged before the column was declared as the id.
                there = column in read_column_names(self.connection, files)
                event_id = f"coalesce(CAST({quote(column)} AS VARCHAR), {EVENT_ID})" if there else EVENT_ID
                known = f"SELECT {event_id} AS id FROM read_parquet(?, union_by_name=true) WHERE {REJECT} IS NULL"
                self._mark(found, KNOWN, f"SELECT place FROM {ids} SEMI JOIN ({known}) USING (id)", [files])
        return found

    def _mark(self, found: npt.NDArray[np.uint8], mark: int, query: str, parameters: list[list[str]]) -> None:
        with self.connection.sql(query, params=parameters).to_arrow_reader(1_000_000) as reader:
            for batch in reader:
                found[batch["place"].to_numpy()] |= mark

    def _id(self, column: str) -> str:
        types = self.table.column_types(self.connection)
        dtype = self.source.column(column).dtype
        return f"CAST({cast_sql(quote(column), types[column], dtype)} AS VARCHAR)"


def history_files(source: EventSource, repo: Path, connection: duckdb.DuckDBPyConnection) -> Iterator[HistoryFile]:
    """Yield the files of a source's history, sorted by path.

    Raises:
        SourceError: there is no history, or it lacks a column.
    """
    name = f"history of event source {source.name!r}"
    if source.history is None:
        raise SourceError(name, "is not declared", fix="give the source a batch_source with the files")
    declared = {column.name: column.dtype for column in source.columns}
    whole = find_table(repo, source.history, name, declared)
    check_columns(whole.name, whole.column_types(connection), {item.name: item.dtype for item in file_columns(source)})
    for file in whole.files:
        chosen, _ = whole.split([file])
        if chosen is not None:
            path = Path(file)
            within = str(path.relative_to(repo)) if path.is_relative_to(repo) else file
            yield HistoryFile(name=within, path=path, table=chosen, source=source, connection=connection)


def file_columns(source: EventSource) -> list[Column]:
    """Return the columns of a source's history: those of its events, their time, and when they were written."""
    moments = [name for name in (source.event_column, source.created_column) if name]
    return [*source.columns, *(Column(name=name, dtype=DType.TIMESTAMP) for name in moments)]
