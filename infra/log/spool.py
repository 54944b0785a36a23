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
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import SkewlessError, StoreError
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.log_columns import encode_columns
from skewless.infra.storage.database import Database
from skewless.infra.storage.documents import Documents
from skewless.infra.storage.durable import disk_error, hold_lock, make_folder, sync_file, sync_folder
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.telemetry.logger import EventLogger

_NAME = re.compile(r"(?P<at>\d{20})-(?P<writer>[0-9a-f]{12})-(?P<number>\d{6,})\.parquet")
_TIME_DIGITS = 20
CORRUPT = ".corrupt"  # ending of files that cannot be read
_LONGEST_PAUSE_S = 30.0
_log = EventLogger()


class Spool:
    """The unshipped files of one log; all processes of a machine share them.

    Args:
        state: of the project.
        partition: name of the log.
        schema: of all its rows.
    """

    def __init__(self, state: ProjectState, partition: str, schema: pa.Schema) -> None:
        self.folder = state / "spool" / partition
        self._state = state
        self._partition = partition
        self._schema = schema

    def path(self, at_us: int, writer: str, number: int) -> Path:
        """Return the path of a writer's next file.

        Args:
            at_us: time of its first row, microseconds.
            writer: 12 hexadecimal digits, unique for a process.
            number: of the file for this writer, from 0; files are shipped in this order.
        """
        return self.folder / f"{at_us:020d}-{writer}-{number:06d}.parquet"

    def store(self, path: Path, rows: pa.Table, **options: Any) -> None:  # noqa: ANN401 - as pyarrow has them
        """Write a complete file durably.

        Args:
            path: of ``path``.
            rows: in the log's schema.
            options: of the Parquet writer.

        Raises:
            StoreError: the disk refused the write.
        """
        temporary = path.with_suffix(".tmp")
        try:
            make_folder(self.folder)
            pq.write_table(rows, temporary, **options)
            sync_file(temporary)
            temporary.replace(path)
            sync_folder(self.folder)
        except OSError as error:
            raise disk_error(path, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def waiting(self) -> list[Path]:
        """Return the files that are not in the log yet, each writer's in the order of their numbers."""
        names = {path: _NAME.fullmatch(path.name) for path in self.folder.glob("*.parquet")}
        known = {path: (name["writer"], int(name["number"])) for path, name in names.items() if name}
        return sorted(known, key=known.__getitem__)

    def ship(self) -> int:
        """Add all files to the log; return how many. A kill at any point neither loses nor repeats a row.

        Raises:
            StoreError: the storage or the database is unavailable; a later call continues.
        """
        if not self.waiting():
            return 0
        try:
            with hold_lock(self.folder / ".lock"):
                files = self.waiting()
                for path in files:
                    self._ship_or_quarantine(path)
        except OSError as error:
            raise disk_error(self.folder, error) from error
        return len(files)

    def _ship_or_quarantine(self, path: Path) -> None:
        """Ship a file; a file that cannot be read must not stop the files after it, and is kept."""
        name = _NAME.fullmatch(path.name)
        if name is None:
            raise ValueError(f"{path.name} is not the name of a spooled file")
        writer, number = name["writer"], int(name["number"])
        try:
            rows = int(pq.read_metadata(path).num_rows)
        except (OSError, pa.ArrowException) as error:
            with ShippedFiles(self._state.database).edit(writer) as shipped:
                shipped["missing"] = sorted({*shipped.get("missing", ()), number})
            _log.error("spooled_file_corrupt", file=str(path), error=str(error))
            path.rename(path.with_suffix(CORRUPT))
            return
        self._ship(path, writer, number, rows)

    def _ship(self, path: Path, writer: str, number: int, rows: int) -> None:
        with self._state.database.snapshot():
            pass  # while the database is down, nothing is stored in vain
        began_at = time.time()
        # A new name for each attempt: housekeeping may be deleting the object of an interrupted one.
        object_name = f"{self._partition}/{path.stem}-{uuid.uuid4().hex[:12]}.parquet"
        stored = self._state.storage.put_file(object_name, path)
        with ShippedFiles(self._state.database).claim(writer, number) as is_new:
            # After a kill behind the commit, the file is in the log already, perhaps merged with others.
            if is_new:
                Catalog(self._state.database).append(
                    self._partition,
                    stored,
                    rows,
                    began_at=began_at,
                    at_us=int(path.name[:_TIME_DIGITS]),
                    columns=encode_columns(self._schema),
                )
        path.unlink()


class ShippedFiles:
    """The numbers of each writer's files that are in the log: ``number`` is the highest, ``missing`` ones are not."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._documents = Documents(database, "shipped_files")

    def edit(self, writer: str) -> AbstractContextManager[dict[str, Any]]:
        """Yield a writer's numbers to change, in a transaction: not those in the memory of reads."""
        return self._documents.edit(writer, {"number": -1})

    def is_new(self, writer: str, number: int) -> bool:
        """Return whether a file is not in the log."""
        shipped = self._documents.get(writer) or {"number": -1}
        return number > shipped["number"] or number in shipped.get("missing", ())

    @contextmanager
    def claim(self, writer: str, number: int) -> Iterator[bool]:
        """Yield whether a file is not in the log yet; the transaction of the block records that it is."""
        with self.edit(writer) as shipped:
            missing, last = {*shipped.get("missing", ())}, shipped["number"]
            yield number > last or number in missing
            # A database that was restored to an older state lacks numbers, whose files `skewless recover` adds.
            missing |= set(range(last + 1, number))
            shipped |= {"number": max(number, last), "missing": sorted(missing - {number})}


class Shipper:
    """A thread that ships the files of spools: those of earlier processes at once, new ones after each wake-up.

    While that fails it tries again, ever more rarely, and ignores wake-ups: thousands of files may wait.

    Attributes:
        files_waiting: number of files that the last try left.
        problem: why they wait; None: nothing waits for that reason.
    """

    def __init__(self, spools: Sequence[Spool]) -> None:
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
        pause: float | None = None
        while True:
            if pause is None:
                self._wake.wait()
            else:
                self._closing.wait(pause)
            self._wake.clear()
            is_closing = self._closing.is_set()
            try:
                for spool in self._spools:
                    spool.ship()
                self._note(None)
                pause = None
            except SkewlessError as error:
                self._note(error)
                pause = min(2 * (pause or 0.25), _LONGEST_PAUSE_S)
            if is_closing:
                return

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
