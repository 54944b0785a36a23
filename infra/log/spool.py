"""Files of a log that this machine has written and not yet added to the log.

A server needs neither database nor storage to log predictions and outcomes: it writes them here, and ships them. A
file's name begins with the time of its first row; then come its writer, and its number for this writer::

    00001768478400123456-3f2a91c07b5d-000004.parquet
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import SkewlessError, StoreError
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import write_rows
from skewless.infra.log.log_columns import encode_columns
from skewless.infra.platform.host.priority import lower_priority
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.durable import (
    hold_lock,
    make_folder,
    seal_file,
    sync_folder,
    translate_disk_errors,
)
from skewless.infra.platform.storage.objects import StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.logger import EventLogger

_NAME = re.compile(r"(?P<at>\d{20})-(?P<writer>[0-9a-f]{12})-(?P<number>\d{6,})\.parquet")
_DAY_US = 86_400_000_000
_KEPT_US = 90 * _DAY_US  # the numbers of a writer that has ended
_MOST_ROWS = 50_000  # that are shipped together
_LARGE_ROWS = 20_000  # of a file that is shipped alone
_TRIM_FILES = 60  # between two looks at all files of a folder
CORRUPT = ".corrupt"  # ending of files that cannot be read
# Between two shipments, so that many small files become few segments; and at most, while it fails.
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_log = EventLogger()


class _SpooledFile(NamedTuple):
    """A file that can be shipped."""

    path: Path
    writer: str
    number: int
    at_us: int
    rows: int
    table: pa.Table | None  # None: it is shipped as it is, unread

    @property
    def kind(self) -> tuple[str, int]:
        """Its writer and UTC day; predictions of a day can be deleted together later."""
        return self.writer, self.at_us // _DAY_US


class Spool:
    """The unshipped files of one log; all processes of a machine share them.

    Args:
        state: of the project.
        partition: name of the log.
        schema: of all its rows.
        options: of the Parquet writer.

    Attributes:
        writer: 12 hexadecimal digits, unique for an object.
        number: of its next file, from 0; files are shipped in this order.
    """

    def __init__(
        self, state: ProjectState, partition: str, schema: pa.Schema, options: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = state / "spool" / partition
        self.writer, self.number, self._trim_at = uuid.uuid4().hex[:12], 0, 0
        self._state = state
        self._partition = partition
        self._schema = schema
        self._options = options or {}
        self._own_rows: dict[int, int] = {}

    @property
    def next_name(self) -> str:
        """Writer and number of the next file."""
        return f"{self.writer}-{self.number:06d}"

    def store(self, at_us: int, rows: pa.Table) -> None:
        """Write the next file of this object durably and completely; call this from one thread.

        Args:
            at_us: time of its first row, microseconds.
            rows: in the log's schema.

        Raises:
            StoreError: the disk refused the write.
        """
        path = self.folder / f"{at_us:020d}-{self.next_name}.parquet"
        temporary = path.with_suffix(".tmp")
        try:
            with translate_disk_errors(path):
                make_folder(self.folder)
                pq.write_table(rows, temporary, **self._options)
                seal_file(temporary)
                temporary.replace(path)
                sync_folder(self.folder)
        finally:
            temporary.unlink(missing_ok=True)
        self._own_rows[self.number] = len(rows)
        self.number += 1

    def waiting(self) -> list[Path]:
        """Return the files that are not in the log yet, each writer's in the order of their numbers."""
        return [path for _, _, path, _ in self._list_waiting()]

    def _list_waiting(self) -> list[tuple[str, int, Path, int]]:
        """Return writer, number, path and time of the files that wait, in this order."""
        names = [(path, _NAME.fullmatch(path.name)) for path in self.folder.glob("*.parquet")]
        return sorted((name["writer"], int(name["number"]), path, int(name["at"])) for path, name in names if name)

    def ship(self) -> int:
        """Add all files to the log; return how many. A kill at any point neither loses nor repeats a row.

        Files of one writer and UTC day are added together, because adding takes longer than writing a file.

        Raises:
            StoreError: the storage or the database is unavailable; a later call continues.
        """
        if not self.waiting():
            return 0
        shipped = 0
        with translate_disk_errors(self.folder), hold_lock(self.folder / ".lock"):
            for batch in self._batches():
                self._ship(batch)
                shipped += len(batch)
        return shipped

    def trim(self, keep_bytes: int) -> int:
        """Delete the oldest files beyond a size, from which nothing is added to the log; return how many.

        Other processes may write and trim the same folder. Only every 60th file is looked at: a look takes as long as
        the folder has files.

        Raises:
            StoreError: the disk refused it.
        """
        if self.number < self._trim_at:
            return 0
        self._trim_at, size, deleted = self.number + _TRIM_FILES, 0, 0
        with translate_disk_errors(self.folder):
            for path in sorted(self.waiting(), key=lambda path: path.name, reverse=True):
                with suppress(FileNotFoundError):
                    size += path.stat().st_size
                if size > keep_bytes:
                    path.unlink(missing_ok=True)
                    deleted += 1
        return deleted

    def _batches(self) -> Iterator[list[_SpooledFile]]:
        """Yield files that are shipped together; a file that cannot be read stops none, and is kept."""
        batch: list[_SpooledFile] = []
        rows = 0
        files = self._list_waiting()
        for waiting in files:
            file = self._read_or_quarantine(*waiting, is_alone=len(files) == 1)
            if file is None:
                continue
            is_whole = file.table is None
            if batch and (is_whole or file.kind != batch[0].kind or rows + file.rows > _MOST_ROWS):
                yield batch
                batch, rows = [], 0
            if is_whole:
                yield [file]
                continue
            batch.append(file)
            rows += file.rows
        if batch:
            yield batch

    def _read_or_quarantine(
        self, writer: str, number: int, path: Path, at_us: int, *, is_alone: bool
    ) -> _SpooledFile | None:
        # This object has just written it, and it is not to be merged: reading it takes as long as writing it.
        own_rows = self._own_rows.pop(number, None) if writer == self.writer else None
        if own_rows is not None and (is_alone or own_rows >= _LARGE_ROWS):
            return _SpooledFile(path, writer, number, at_us, own_rows, None)
        try:
            table = pq.ParquetFile(path).read()
            return _SpooledFile(path, writer, number, at_us, len(table), table)
        except (OSError, pa.ArrowException) as error:
            with ShippedFiles(self._state.database).edit(writer) as shipped:
                shipped["missing"] = sorted({*shipped.get("missing", ()), number})
            _log.error("spooled_file_corrupt", file=str(path), error=str(error))
            path.rename(path.with_suffix(CORRUPT))
            return None

    def _ship(self, batch: list[_SpooledFile]) -> None:
        shipped, began_at = ShippedFiles(self._state.database), time.time()
        # While the database is down, this fails, and nothing is stored in vain. Not from the memory of reads.
        with self._state.database.snapshot():
            # After a kill behind the commit, a file is in the log already, perhaps merged with others.
            new = [file for file in batch if shipped.is_new(file.writer, file.number)]
        if new:
            stored = self._store_object(new)
            with shipped.claim(new[0].writer, [file.number for file in new]) as is_new:
                if is_new:
                    Catalog(self._state.database).append(
                        self._partition,
                        stored,
                        sum(file.rows for file in new),
                        began_at=began_at,
                        at_us=new[-1].at_us,
                        columns=encode_columns(self._schema),
                    )
        for file in batch:
            file.path.unlink(missing_ok=True)

    def _store_object(self, batch: list[_SpooledFile]) -> StoredObject:
        """Store the rows of files as one object."""
        storage = self._state.storage
        # A new name for each attempt: housekeeping may be deleting the object of an interrupted one.
        name = f"{self._partition}/{batch[-1].path.stem}-{uuid.uuid4().hex[:12]}.parquet"
        if len(batch) == 1:
            return storage.put_file(name, batch[0].path)
        rows = pa.concat_tables([file.table for file in batch if file.table is not None])
        with write_rows(storage, [rows], rows.schema, lambda _: self._options) as (path, _):
            return storage.put_file(name, path)


class ShippedFiles:
    """The numbers of each writer's files that are in the log: ``number`` is the highest, ``missing`` ones are not."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._documents = Documents(database, "shipped_files")

    def prune(self) -> None:
        """Forget the writers whose last file was shipped 90 days ago: no machine still has a shipped file then."""
        with self._database.transaction():
            now_us = self._database.now_us()
            for writer, shipped in self._documents.list_all().items():
                if shipped.get("at_us", now_us) < now_us - _KEPT_US:
                    self._documents.delete(writer)

    def edit(self, writer: str) -> AbstractContextManager[dict[str, Any]]:
        """Yield a writer's numbers to change, in a transaction: not those in the memory of reads."""
        return self._documents.edit(writer, {"number": -1})

    def is_new(self, writer: str, number: int) -> bool:
        """Return whether a file is not in the log."""
        shipped = self._documents.get(writer) or {"number": -1}
        return number > shipped["number"] or number in shipped.get("missing", ())

    @contextmanager
    def claim(self, writer: str, numbers: Collection[int]) -> Iterator[bool]:
        """Yield whether none of some files is in the log yet; the transaction of the block records that all are."""
        with self.edit(writer) as shipped:
            missing, last, latest = {*shipped.get("missing", ())}, shipped["number"], max(numbers)
            yield all(number > last or number in missing for number in numbers)
            # A database that was restored to an older state lacks numbers, whose files `skewless recover` adds.
            missing |= set(range(last + 1, latest))
            shipped |= {"number": max(latest, last), "missing": sorted(missing - {*numbers})}
            shipped["at_us"] = self._database.now_us()


class Shipper:
    """A thread that ships the files of spools: those of earlier processes at once, new ones soon after each wake-up.

    While that fails it tries again, ever more rarely, and ignores wake-ups: thousands of files may wait.

    Args:
        keep_bytes: do not ship, and delete the oldest files of each spool beyond this size; None: ship all.

    Attributes:
        files_waiting: number of files that the last try left.
        problem: why they wait; None: nothing waits for that reason.
    """

    def __init__(self, spools: Sequence[Spool], keep_bytes: int | None = None) -> None:
        self._keep_bytes = keep_bytes
        self.files_waiting = 0
        self.problem: str | None = None
        self._spools = spools
        self._wake = threading.Event()
        self._wake.set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-shipping", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Ship new files soon."""
        self._wake.set()

    def ship(self, spool: Spool) -> None:
        """Ship the files of a spool now, in the caller's thread; if that fails, the shipper tries again.

        Raises:
            StoreError: as ``Spool.ship``.
        """
        try:
            spool.ship()
        except StoreError:
            self.wake()
            raise

    def close(self) -> None:
        """Ship what waits, once, and stop; files that cannot be shipped stay for the next process."""
        self._closing.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        lower_priority()
        pause = _PAUSE_S
        while True:
            self._wake.wait()
            self._wake.clear()
            is_closing = self._closing.is_set()
            try:
                for spool in self._spools:
                    spool.ship() if self._keep_bytes is None else spool.trim(self._keep_bytes)
                self._note(None)
                pause = _PAUSE_S
            except SkewlessError as error:
                self._note(error)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                self._wake.set()
            if is_closing:
                return
            self._closing.wait(pause)

    def _note(self, error: SkewlessError | None) -> None:
        """Record why files wait; log each change once."""
        if error is not None and self.problem is None:
            _log.warning("log_not_shipped", error=str(error))
        elif error is None and self.problem is not None:
            _log.info("log_shipped")
        self.problem = None if error is None else _describe(error)
        self.files_waiting = sum(len(spool.waiting()) for spool in self._spools) if error else 0


def _describe(error: SkewlessError) -> str:
    """Return the reason without paths and addresses, because clients of a server see it."""
    thing = " ".join(word for word in error.thing.split() if "/" not in word)
    return f"{thing} {error.problem.partition(':')[0]}"
