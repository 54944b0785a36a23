"""Reads one file of an event source's history: its rows in the source's types, in file order, and their digests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.arrow_types import arrow_type
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.windows.view import EventSource
from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.log_columns import EVENT_ID, REJECT
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.matched_rows import copy_to_table
from skewless.infra.reads.offline.source_columns import check_columns
from skewless.infra.reads.offline.sources import Table, find_table
from skewless.infra.reads.offline.sql import cast_sql, quote
from skewless.infra.reads.offline.window_events import read_column_names

_BYTES = 16
KNOWN, SEVERAL = 1, 2
_IDS = "import_ids"


class RowDigest:
    """An incremental digest of table rows: equal rows in equal order have an equal digest.

    For each column it hashes the null mask, the values in a fixed width (null as zero, all NaNs equal), and for text
    the lengths and the bytes. Each part has its own hash, so that the bounds of batches do not matter.

    Attributes:
        rows: number of hashed rows.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.rows = 0
        self._columns = tuple(columns)
        self._encode_parts = [[blake2b(digest_size=_BYTES) for _ in range(3)] for _ in columns]

    def update(self, rows: pa.Table) -> None:
        """Add rows, which must have the columns under their names."""
        for column, hashers in zip(self._columns, self._encode_parts, strict=True):
            for chunk in rows[column.name].cast(arrow_type(column.dtype)).chunks:
                for hasher, part in zip(hashers, _encode_parts(chunk), strict=False):
                    hasher.update(part)
        self.rows += rows.num_rows

    def copy(self) -> RowDigest:
        """Return an independent copy."""
        other = RowDigest(self._columns)
        other.rows = self.rows
        other._encode_parts = [[hasher.copy() for hasher in hashers] for hashers in self._encode_parts]
        return other

    def hexdigest(self) -> str:
        """Return the digest of all rows so far."""
        total = blake2b(self.rows.to_bytes(8, "little"), digest_size=_BYTES)
        for column, hashers in zip(self._columns, self._encode_parts, strict=True):
            total.update(f"{len(column.name)} {column.name} {column.dtype} ".encode())
            for hasher in hashers:
                total.update(hasher.digest())
        return total.hexdigest()


def digest_rows(columns: Sequence[Column], rows: pa.Table) -> str:
    """Return the digest of a table.

    >>> from skewless.contract.dtypes import DType
    >>> columns = [Column(name="x", dtype=DType.FLOAT64), Column(name="s", dtype=DType.STRING)]
    >>> one = pa.table({"x": [1.0, None], "s": ["a", ""]})
    >>> digest_rows(columns, one) == digest_rows(columns, pa.concat_tables([one.slice(0, 1), one.slice(1)]))
    True
    >>> digest_rows(columns, one) == digest_rows(columns, pa.table({"x": [1.0, 0.0], "s": ["a", ""]}))
    False
    """
    digest = RowDigest(columns)
    digest.update(rows)
    return digest.hexdigest()


def _encode_parts(array: pa.Array) -> Iterator[bytes | memoryview]:
    yield np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=np.uint8).tobytes()
    if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        yield from _encode_text(array)
        return
    values = array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(array.type):
        # NaNs may have different bits, but are one value.
        numbers = np.where(np.isnan(numbers), np.asarray(np.nan, numbers.dtype), numbers)
    yield numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()


def _encode_text(array: pa.Array) -> Iterator[bytes | memoryview]:
    is_text = pa.types.is_string(array.type)
    filled = array.fill_null("" if is_text else b"")
    total = (filled.cast(pa.large_string()) if is_text else filled).cast(pa.large_binary())
    yield pc.binary_length(total).to_numpy().astype("<i8").tobytes()
    _, bounds, data = total.buffers()
    if data is not None:
        # Only the bytes of this slice: the buffer may be shared with others.
        ends = np.frombuffer(bounds, dtype="<i8")[total.offset : total.offset + len(total) + 1]
        yield memoryview(data)[int(ends[0]) : int(ends[-1])]


@dataclass(frozen=True, kw_only=True)
class HistoryFile:
    """One file. While its rows are read, the connection must not be used for anything else.

    Args:
        name: path relative to the project if it is inside, otherwise absolute.
        path: of the file.
        table: reads the file.
        source: of the events.
        connection: to DuckDB.
    """

    name: str
    path: Path
    table: Table
    source: EventSource
    connection: duckdb.DuckDBPyConnection

    def count(self, condition: str = "true") -> int:
        """Return the number of rows that meet a SQL condition."""
        with self.table.reading(self.connection):
            query = f"SELECT count(*) FROM {self.table.relation} WHERE {condition}"
            return int(self.connection.execute(query, self.table.parameters).fetchall()[0][0])

    def rows(self, columns: Sequence[Column], size: int, first: int = 0, last: int | None = None) -> Iterator[pa.Table]:
        """Yield rows in order, at most ``size`` at a time; a value that does not fit its type is null.

        Args:
            columns: names and types.
            size: maximum number of rows in a table.
            first, last: row numbers, both included; None: to the end.
        """
        types = self.table.column_types(self.connection)
        column_list = ", ".join(
            f"{cast_sql(quote(column.name), types[column.name], column.dtype)} AS {quote(column.name)}"
            for column in columns
        )
        limit = "" if last is None else f" LIMIT {last + 1 - first}"
        with self.table.reading(self.connection):
            query = f"SELECT {column_list} FROM {self.table.relation}{limit} OFFSET {first}"
            with self.connection.sql(query, params=self.table.parameters).to_arrow_reader(size) as reader:
                for batch in reader:
                    if batch.num_rows:
                        yield pa.Table.from_batches([batch])

    def digests(self, columns: Sequence[Column], size: int, counts: Sequence[int]) -> Iterator[RowDigest]:
        """Yield the digest of the first rows, for each of the given row counts, ascending."""
        digest = RowDigest(columns)
        remaining = list(counts)
        while remaining and remaining[0] == 0:
            yield digest.copy()
            remaining.pop(0)
        if not remaining:
            return
        for rows in self.rows(columns, size, last=remaining[-1] - 1):
            start = digest.rows
            while remaining and remaining[0] <= start + rows.num_rows:
                digest.update(rows.slice(digest.rows - start, remaining.pop(0) - digest.rows))
                yield digest.copy()
            digest.update(rows.slice(digest.rows - start))

    def count_without_id(self, column: str) -> int:
        """Return the number of rows without an event id."""
        return self.count(f"{self._id_sql(column)} IS NULL")

    def find_repeats(self, column: str, first: int, state: ProjectState) -> npt.NDArray[np.uint8]:
        """Return flags for rows from ``first`` on: ``KNOWN`` if the log has the id, ``SEVERAL`` if another row has it.

        Memory: DuckDB's limit, beyond which it spills to disk, and one byte per row.
        """
        rows = f"SELECT {self._id_sql(column)} AS id FROM {self.table.relation} OFFSET {first}"
        # A join loses the order of rows, so each row gets its index first.
        numbered = f"SELECT row_number() OVER () - 1 AS place, id FROM ({rows})"
        parameters = self.table.parameters
        with self.table.open(self.connection), copy_to_table(self.connection, _IDS, numbered, parameters) as ids:
            n_rows = self.connection.execute(f"SELECT count(*) FROM {ids}").fetchall()[0][0]
            flags = np.zeros(int(n_rows), dtype=np.uint8)
            repeated_ids = f"SELECT id FROM {ids} WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1"
            self._set_flags(flags, SEVERAL, f"SELECT place FROM {ids} SEMI JOIN ({repeated_ids}) USING (id)", [])
            logs = [PartitionLog(state, name) for name in log_partitions(state, self.source.name)]
            files = [file for log in logs for file in log.files()]
            if files:
                # Rows from before the column was declared as the id have no __event_id.
                has_column = column in read_column_names(self.connection, files)
                event_id = f"coalesce(CAST({quote(column)} AS VARCHAR), {EVENT_ID})" if has_column else EVENT_ID
                logged_ids = f"SELECT {event_id} AS id FROM read_parquet(?, union_by_name=true) WHERE {REJECT} IS NULL"
                self._set_flags(flags, KNOWN, f"SELECT place FROM {ids} SEMI JOIN ({logged_ids}) USING (id)", [files])
        return flags

    def _set_flags(self, flags: npt.NDArray[np.uint8], flag: int, query: str, parameters: list[list[str]]) -> None:
        with self.connection.sql(query, params=parameters).to_arrow_reader(1_000_000) as reader:
            for batch in reader:
                flags[batch["place"].to_numpy()] |= flag

    def _id_sql(self, column: str) -> str:
        types = self.table.column_types(self.connection)
        dtype = self.source.column(column).dtype
        return f"CAST({cast_sql(quote(column), types[column], dtype)} AS VARCHAR)"


def history_files(source: EventSource, repo: Path, connection: duckdb.DuckDBPyConnection) -> Iterator[HistoryFile]:
    """Yield the files of a source's history, sorted by path.

    Raises:
        SourceError: the source declares no history, or it lacks a column.
    """
    name = f"history of event source {source.name!r}"
    if source.history is None:
        raise SourceError(name, "is not declared", fix="give the source a batch_source with the files")
    declared = {column.name: column.dtype for column in source.columns}
    table = find_table(repo, source.history, name, declared)
    check_columns(table.name, table.column_types(connection), {item.name: item.dtype for item in file_columns(source)})
    for file in table.files:
        file_table, _ = table.split([file])
        if file_table is not None:
            path = Path(file)
            relative_name = str(path.relative_to(repo)) if path.is_relative_to(repo) else file
            yield HistoryFile(name=relative_name, path=path, table=file_table, source=source, connection=connection)


def file_columns(source: EventSource) -> list[Column]:
    """Return the columns of a source's history: event columns, event time and created time."""
    time_columns = [name for name in (source.event_column, source.created_column) if name]
    return [*source.columns, *(Column(name=name, dtype=DType.TIMESTAMP) for name in time_columns)]
