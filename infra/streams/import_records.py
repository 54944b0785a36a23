"""What of which files stands in the log: files are known by their rows, not by their names (SEMANTICS 4.4).

A record for each import partition says how many rows were taken and their digest. It is durable before the rows are:
what a record intends and the log does not hold is done again after a kill. Under any name a file is the same, and when
it grew it is too: a matcher says which record has its rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.columns import Column, build_columns
from skewless.contract.errors import StoreError
from skewless.infra.log.accepted import EVENT, REJECT
from skewless.infra.log.event_log import EventLog
from skewless.infra.log.event_rows import SOURCE_POS
from skewless.infra.storage.durable import replace_durable
from skewless.infra.streams.history_file import HistoryFile
from skewless.infra.streams.row_digest import RowDigest, digest_rows

_BATCH_ROWS = 100_000


@dataclass(frozen=True, kw_only=True)
class FilePrefix:
    """The first rows of a file: how many, and their digest."""

    rows: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class ImportRecord:
    """The rows of one import partition.

    Args:
        key: name of the partition's folder.
        columns: those that the digests are made of.
        head: digest of the first row.
        done: the rows that were taken.
        next: the rows that are being taken; once the log holds any of them, it holds all that are new. None: nothing.
        files: of each file that has these rows, by its name: what it was, and its number of rows; a hint.
    """

    key: str
    columns: tuple[Column, ...]
    head: str
    done: FilePrefix
    next: FilePrefix | None = None
    files: dict[str, tuple[str, int]] = field(default_factory=dict)


class ImportRecords:
    """The records of one source.

    Args:
        folder: of the source's logs.
        dry_run: keep changes in memory only.
    """

    def __init__(self, folder: Path, *, dry_run: bool) -> None:
        self._folder = folder
        self._dry_run = dry_run
        self._records = {record.key: record for record in map(_read, sorted(folder.glob("import-*.json")))}

    def __iter__(self) -> Iterator[ImportRecord]:
        """Yield all records."""
        return iter(tuple(self._records.values()))

    def of_file(self, name: str) -> ImportRecord | None:
        """Return the record that a file of this name was last taken into."""
        return next((record for record in self if name in record.files), None)

    def save(self, record: ImportRecord) -> ImportRecord:
        """Put a record in the place of the one before; return it.

        Raises:
            StoreError: the disk refused.
        """
        if self._records.get(record.key) != record:
            if not self._dry_run:
                replace_durable(self._path(record.key), json.dumps(asdict(record)).encode())
            self._records[record.key] = record
        return record

    def name_file(self, record: ImportRecord, name: str, fingerprint: str, rows: int) -> None:
        """Note that a file has the rows of a record; it had those of another before, perhaps."""
        for other in self:
            if other.key != record.key and name in other.files:
                self.save(replace(other, files={key: hint for key, hint in other.files.items() if key != name}))
        self.save(replace(record, files=record.files | {name: (fingerprint, rows)}))

    def free_key(self, name: str) -> str:
        """Return the name of a partition for a new file: that of its path, if it is the first there."""
        number, key = 0, _key(name)
        while key in self._records:
            number += 1
            key = _key(f"{name}#{number}")
        return key

    def _path(self, key: str) -> Path:
        return self._folder / f"import-{key}.json"


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _read(path: Path) -> ImportRecord:
    try:
        data = json.loads(path.read_text())
        return ImportRecord(
            key=data["key"],
            columns=build_columns(data["columns"]),
            head=data["head"],
            done=FilePrefix(**data["done"]),
            next=FilePrefix(**data["next"]) if data["next"] else None,
            files={name: (fingerprint, rows) for name, (fingerprint, rows) in data["files"].items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"import record {path}", "cannot be read", value=error, fix="restore it, or import into a new state folder"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Match:
    """The partition of a file.

    Args:
        digest: of the rows that the partition has, all of which are the file's first; None: it has all of the file.
    """

    record: ImportRecord
    digest: RowDigest | None


class Matcher:
    """Compares files with records.

    Args:
        folder: of the source's import partitions, relative to the logs.
        pending: files that a dry run would have taken, by the key of their records.
    """

    def __init__(self, log_root: Path, folder: str, pending: dict[str, HistoryFile]) -> None:
        self._log_root = log_root
        self._folder = folder
        self._pending = pending

    def find(self, file: HistoryFile, count: int, records: Iterable[ImportRecord]) -> Match | None:
        """Return the partition that has the first rows of a file, or all.

        Args:
            count: how many rows the file has; at least one.
        """
        ordered = sorted(records, key=lambda record: repr(record.columns))
        for _, group in groupby(ordered, key=lambda record: record.columns):
            found = self._find(file, count, list(group))
            if found is not None:
                return found
        return None

    def standing(self, record: ImportRecord) -> FilePrefix:
        """Return which rows of a record the log has: those that were being taken when it was written, too, or not."""
        if record.next is None or record.key in self._pending:
            return record.next or record.done
        log = self.log(record.key)
        last = log.next_seq() - 1
        rows = [] if last < 0 else next(log.read(last, last, [SOURCE_POS]))[SOURCE_POS].to_pylist()
        return record.next if rows and rows[0] >= record.done.rows else record.done

    def log(self, key: str) -> EventLog:
        """Return the log of an import partition."""
        return EventLog(self._log_root, f"{self._folder}/{key}")

    def _find(self, file: HistoryFile, count: int, records: Sequence[ImportRecord]) -> Match | None:
        columns = records[0].columns
        if not file.has(columns):
            return None
        try:
            head = digest_rows(columns, next(file.rows(columns, 1, last=0)))
            marks = {record.key: self.standing(record) for record in records if record.head == head}
            same = [record for record in records if record.head == head]
            longer = [record for record in same if marks[record.key].rows >= count]
            for record in longer:
                if self._begins(record, marks[record.key], file, count):
                    return Match(record=record, digest=None)
            return self._grown(file, [record for record in same if record not in longer], marks)
        except duckdb.Error:
            return None  # a column has another type than when the rows were taken

    def _grown(self, file: HistoryFile, records: Sequence[ImportRecord], marks: dict[str, FilePrefix]) -> Match | None:
        counts = sorted({marks[record.key].rows for record in records})
        found = None
        for digest in file.digests(records[0].columns, _BATCH_ROWS, counts) if records else ():
            mark = FilePrefix(rows=digest.rows, digest=digest.hexdigest())
            for record in records:
                if marks[record.key] == mark:
                    found = Match(record=record, digest=digest)
        return found

    def _begins(self, record: ImportRecord, mark: FilePrefix, file: HistoryFile, count: int) -> bool:
        """Say whether the rows of a partition begin with a whole file."""
        if mark.rows == count:
            (digest,) = file.digests(record.columns, _BATCH_ROWS, [count])
            return digest.hexdigest() == mark.digest
        if record.key in self._pending:
            one, other = (
                next(each.digests(record.columns, _BATCH_ROWS, [count])).hexdigest()
                for each in (file, self._pending[record.key])
            )
            return one == other
        return self._logged(record, file)

    def _logged(self, record: ImportRecord, file: HistoryFile) -> bool:
        """Compare a file with the log, which has no created times, and lacks events that were known before."""
        source, log = file.source, self.log(record.key)
        own = [column for column in record.columns if column.name not in {source.event_column, source.created_column}]
        moment = [column for column in record.columns if column.name == source.event_column]
        start = seq = 0
        for rows in file.rows(record.columns, _BATCH_ROWS):
            names = [*(column.name for column in own), EVENT, SOURCE_POS, REJECT]
            logged = pa.concat_tables(log.read(seq, seq + rows.num_rows - 1, names))
            logged = logged.filter(pc.less(logged[SOURCE_POS], start + rows.num_rows))
            mine = rows.take(pa.array(logged[SOURCE_POS].to_numpy() - start))
            accepted = logged[REJECT].is_null()
            theirs = logged.append_column(source.event_column, logged[EVENT])
            if not (_same(own, mine, theirs) and _same(moment, mine.filter(accepted), theirs.filter(accepted))):
                return False
            start, seq = start + rows.num_rows, seq + logged.num_rows
        return True


def _same(columns: Sequence[Column], one: pa.Table, other: pa.Table) -> bool:
    return digest_rows(columns, one) == digest_rows(columns, other)
