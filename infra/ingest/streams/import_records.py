"""Records which rows of history files are in the log; files are recognized by their rows, not names (SEMANTICS 4.4).

The record of an import partition has the number of imported rows and their digest. It is durable before the rows are
appended, so rows that a killed import announced but did not append are appended by the next run. A renamed or grown
file is recognized, because its first rows have the digest of a record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.columns import Column
from skewless.contract.errors import StoreError
from skewless.contract.plain_record import build_record
from skewless.infra.ingest.streams.history_file import HistoryFile, RowDigest, digest_rows
from skewless.infra.log.catalog import IMPORTED, source_logs
from skewless.infra.log.log_columns import EVENT, REJECT, SOURCE_POS
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.leases import Lease, Leases
from skewless.infra.platform.storage.project_state import ProjectState

_BATCH_ROWS = 100_000


@dataclass(frozen=True, kw_only=True)
class FilePrefix:
    """The number of first rows of a file, and their digest."""

    rows: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class ImportRecord:
    """The rows of one import partition.

    Args:
        key: name of the partition's folder.
        columns: included in the digests.
        head: digest of the first row.
        done: the imported rows.
        next: the rows up to the batch in progress. If the log has one row of the batch, it has all of them. None: no
            batch is in progress.
        files: by file name, fingerprint and row count of each file with these rows; a hint that saves reading it.
    """

    key: str
    columns: tuple[Column, ...]
    head: str
    done: FilePrefix
    next: FilePrefix | None = None
    files: dict[str, tuple[str, int]] = field(default_factory=dict)


class ImportRecords:
    """The import records of one source, which find the partition of a file.

    Args:
        state: of the project.
        source: name of the event source.
        lease: of the import, which the writes check; None: keep changes in memory only.
    """

    def __init__(self, state: ProjectState, source: str, lease: Lease | None) -> None:
        self._state = state
        self._documents = Documents(state.database, "import")
        self._source = source
        self._lease = lease
        # Files that a dry run would have imported, by the key of their records.
        self._pending: dict[str, HistoryFile] = {}
        bodies = self._documents.list_all().items()
        records = (_decode(name, body) for name, body in bodies if name.startswith(f"{source}/"))
        self._records = {record.key: record for record in records}

    def find_by_name(self, name: str) -> ImportRecord | None:
        """Return the record of the last import of a file with this name."""
        return next((record for record in self._records.values() if name in record.files), None)

    def find_by_rows(self, file: HistoryFile, count: int) -> tuple[ImportRecord, RowDigest | None] | None:
        """Return the partition with the first rows of a file, or with all of them; None: there is none.

        Args:
            file: a history file.
            count: its number of rows; at least one.

        Returns:
            The record, and the digest of the partition's rows, which are the first rows of the file; None: the
            partition has all rows.
        """
        ordered = sorted(self._records.values(), key=lambda record: repr(record.columns))
        groups = groupby(ordered, key=lambda record: record.columns)
        matches = (self._find_among(file, count, list(group)) for _, group in groups)
        return next((match for match in matches if match is not None), None)

    def log(self, key: str) -> PartitionLog:
        """Return the log of an import partition."""
        return PartitionLog(self._state, f"{source_logs(self._source)}{IMPORTED}{key}")

    def add_pending(self, record: ImportRecord, file: HistoryFile) -> None:
        """Remember that a dry run would have imported a file."""
        self._pending[record.key] = file

    def save(self, record: ImportRecord) -> ImportRecord:
        """Replace a record; return it.

        Raises:
            StoreError: the database is unavailable.
            ConflictError: another process imports the source by now.
        """
        if self._records.get(record.key) != record:
            if self._lease is not None:
                with self._state.database.transaction():
                    Leases(self._state.database).check(self._lease)
                    self._documents.put(f"{self._source}/{record.key}", asdict(record))
            self._records[record.key] = record
        return record

    def add_file_name(self, record: ImportRecord, name: str, fingerprint: str, rows: int) -> None:
        """Record that a file has the rows of a record, and no longer those of another one."""
        for other in tuple(self._records.values()):
            if other.key != record.key and name in other.files:
                self.save(replace(other, files={key: hint for key, hint in other.files.items() if key != name}))
        self.save(replace(record, files=record.files | {name: (fingerprint, rows)}))

    def unused_key(self, name: str) -> str:
        """Return an unused partition name for a new file, derived from its path."""
        number, key = 0, _key(name)
        while key in self._records:
            number += 1
            key = _key(f"{name}#{number}")
        return key

    def _find_prefix(self, record: ImportRecord) -> FilePrefix:
        """Return the rows of a record that are in the log; the batch in progress may or may not be."""
        if record.next is None or record.key in self._pending:
            return record.next or record.done
        log = self.log(record.key)
        # The source position of the last row shows whether the batch in progress was appended.
        last = log.next_seq() - 1
        rows = [] if last < 0 else next(log.read(last, last, [SOURCE_POS]))[SOURCE_POS].to_pylist()
        return record.next if rows and rows[0] >= record.done.rows else record.done

    def _find_among(
        self, file: HistoryFile, count: int, records: Sequence[ImportRecord]
    ) -> tuple[ImportRecord, RowDigest | None] | None:
        columns = records[0].columns
        types = file.table.column_types(file.connection)
        if not all(column.name in types for column in columns):
            return None
        try:
            head = digest_rows(columns, next(file.rows(columns, 1, last=0)))
            # The digest of the first row excludes most records without reading the file.
            prefixes = {record.key: self._find_prefix(record) for record in records if record.head == head}
            same = [record for record in records if record.head == head]
            longer = [record for record in same if prefixes[record.key].rows >= count]
            for record in longer:
                if self._has_prefix(record, prefixes[record.key], file, count):
                    return record, None
            return self._match_grown(file, [record for record in same if record not in longer], prefixes)
        except duckdb.Error:
            return None  # a column has another type than at the time of the import

    def _match_grown(
        self, file: HistoryFile, records: Sequence[ImportRecord], prefixes: dict[str, FilePrefix]
    ) -> tuple[ImportRecord, RowDigest] | None:
        counts = sorted({prefixes[record.key].rows for record in records})
        match = None
        for digest in file.digests(records[0].columns, _BATCH_ROWS, counts) if records else ():
            prefix = FilePrefix(rows=digest.rows, digest=digest.hexdigest())
            for record in records:
                # Counts ascend, so the last match is the longest prefix.
                if prefixes[record.key] == prefix:
                    match = record, digest
        return match

    def _has_prefix(self, record: ImportRecord, prefix: FilePrefix, file: HistoryFile, count: int) -> bool:
        """Return whether the rows of a partition begin with all rows of a file."""
        if prefix.rows == count:
            (digest,) = file.digests(record.columns, _BATCH_ROWS, [count])
            return digest.hexdigest() == prefix.digest
        if record.key in self._pending:
            one, other = (
                next(each.digests(record.columns, _BATCH_ROWS, [count])).hexdigest()
                for each in (file, self._pending[record.key])
            )
            return one == other
        return self._is_logged(record, file)

    def _is_logged(self, record: ImportRecord, file: HistoryFile) -> bool:
        """Compare a file with the log. The log has no created times, and lacks duplicates that were skipped."""
        source, log = file.source, self.log(record.key)
        columns_without_time = [
            column for column in record.columns if column.name not in {source.event_column, source.created_column}
        ]
        time_column = [column for column in record.columns if column.name == source.event_column]
        start = seq = 0
        for rows in file.rows(record.columns, _BATCH_ROWS):
            names = [*(column.name for column in columns_without_time), EVENT, SOURCE_POS, REJECT]
            logged = pa.concat_tables(log.read(seq, seq + rows.num_rows - 1, names))
            logged = logged.filter(pc.less(logged[SOURCE_POS], start + rows.num_rows))
            file_rows = rows.take(pa.array(logged[SOURCE_POS].to_numpy() - start))
            accepted = logged[REJECT].is_null()
            logged_rows = logged.append_column(source.event_column, logged[EVENT])
            if not (
                _is_same(columns_without_time, file_rows, logged_rows)
                and _is_same(time_column, file_rows.filter(accepted), logged_rows.filter(accepted))
            ):
                return False
            start, seq = start + rows.num_rows, seq + logged.num_rows
        return True


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _decode(name: str, data: Any) -> ImportRecord:  # noqa: ANN401 - a JSON value
    try:
        return build_record(ImportRecord, data)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"import {name!r}", "cannot be read", value=error, fix="restore it, or import into a new state folder"
        ) from error


def _is_same(columns: Sequence[Column], one: pa.Table, other: pa.Table) -> bool:
    return digest_rows(columns, one) == digest_rows(columns, other)
