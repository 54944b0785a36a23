"""A project's database in one SQLite file, for the processes of one machine.

A file of this kind also has the answers of a database that is down, so that a server starts and serves without it.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage.database import BUSY_S, Database, Row, Value
from skewless.infra.platform.storage.durable import lock_handle, make_folder, open_private, translate_disk_errors
from skewless.infra.platform.storage.schema import STEPS, Step
from skewless.infra.platform.telemetry.logger import EventLogger

_PRIVATE = 0o600
_RETRY_S = 0.01
_AWAY_S = 1.0
_MOST_ANSWERS = 10_000
_ANSWER_STEPS = (("CREATE TABLE answers (question TEXT PRIMARY KEY, answer TEXT NOT NULL)",),)
_log = EventLogger()


class SqliteDatabase(Database):
    """A database in one file, for the processes of one machine. A commit is durable when it returns.

    Args:
        path: of the file; it is created at the first write, readable by its owner only.
        busy_s: the longest wait for another writer.
    """

    concatenate = "group_concat"

    def __init__(self, path: Path, steps: Sequence[Step] = STEPS, busy_s: float = BUSY_S) -> None:
        super().__init__(f"database {path}", steps)
        self._path = path
        self._busy_s = busy_s
        self._identity: tuple[int, int] | None = None

    def exists(self) -> bool:
        """Return whether the file exists, so that a read alone creates none."""
        return self._path.exists()

    @contextmanager
    def hold_lock(self, name: str, *, shared: bool = False) -> Iterator[None]:
        """Hold a lock; the kernel releases it when its holder dies. See ``Database.hold_lock``."""
        path = self._path.parent / "locks" / quote(name, safe="")
        with ExitStack() as stack:
            with translate_disk_errors(path):
                make_folder(path.parent)
                gate, lock = (stack.enter_context(open_private(Path(f"{path}.{end}"))) for end in ("gate", "lock"))
            # New arrivals queue behind a waiting exclusive holder, because shared ones that take turns would starve it.
            lock_handle(gate)
            lock_handle(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            gate.close()
            yield

    def _was_replaced(self) -> bool:
        # An open connection would still use the deleted file, and its writes would be lost.
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            identity = None
        else:
            identity = (stat.st_dev, stat.st_ino)
        was_replaced, self._identity = self._identity not in {None, identity}, identity
        return was_replaced

    def now_us(self) -> int:
        """Return the time of this machine, on which all processes are."""
        return time.time_ns() // 1_000

    def _connect(self) -> sqlite3.Connection:
        try:
            make_folder(self._path.parent)
            # Only a new file: closing a descriptor drops the locks that the process's connections have on the file, and
            # then another process deletes the log of writes under them.
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _PRIVATE))
        except OSError as error:
            raise StoreError(
                self.name, f"cannot be opened: {error.strerror}", fix="give write access to its folder"
            ) from error
        with self._translate_errors():
            # One thread at a time uses a connection.
            connection = sqlite3.connect(
                self._path, timeout=self._busy_s, isolation_level=None, check_same_thread=False
            )
            self._use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous=FULL")  # a commit survives a power cut
        return connection

    def _use_write_ahead_log(self, connection: sqlite3.Connection) -> None:
        """Let readers and the writer not wait for each other; the first process sets this in the file."""
        deadline = time.monotonic() + self._busy_s
        while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:
                # SQLite does not wait here if two processes open a new file at once.
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_S)

    def _begin(self, connection: sqlite3.Connection) -> None:
        # A deferred transaction that reads first fails at once, without waiting, if another process has written since.
        connection.execute("BEGIN IMMEDIATE")

    def _begin_snapshot(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")

    def _run(self, connection: sqlite3.Connection, sql: str, values: Sequence[Value]) -> list[Row]:
        return connection.execute(sql, values).fetchall()

    def _has_version(self, connection: sqlite3.Connection) -> bool:
        return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchall())

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # On a full disk, SQLite also fails to make its shared memory file, which even a read needs.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
                fix = "free disk space, or replace the disk, then run again"
                raise StoreError(self.name, f"cannot be written: {error}", fix=fix) from error
            fix = "restore it with `skewless restore`, or make its file readable and writable"
            if str(error) == "database is locked":
                fix = f"find the process that has held it for {self._busy_s:g} s, then run again"
            raise StoreError(self.name, f"cannot be used: {error}", fix=fix) from error


class AnswerMemory:
    """The last rows of each read, in memory and in a local file, so that they survive a restart.

    After a failure, reads do not wait for the database again for a second: a request of the server's reload would
    otherwise take as long as the timeout of a connection.

    Args:
        path: of the file; created at the first answer.
        monotonic: returns the seconds of a clock that never jumps.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._file = SqliteDatabase(path, _ANSWER_STEPS)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._answers: dict[str, list[Row]] | None = None
        self._away_until: float | None = None
        self._away_since = 0.0

    def away_s(self) -> float | None:
        """Return the seconds since the first read that failed; None: the last read succeeded."""
        return None if self._away_until is None else self._monotonic() - self._away_since

    def read(self, question: str, ask: Callable[[], list[Row]]) -> list[Row]:
        """Return the rows of the database, or those of the same read before if it is down.

        Raises:
            StoreError: the database is down, and this was never read before.
        """
        if self._away_until is not None and self._monotonic() < self._away_until:
            return self._recall(question, StoreError("database", "is down", fix="start it, or correct database_url"))
        try:
            rows = ask()
        except StoreError as error:
            return self._recall(question, error)
        if self._away_until is not None:
            self._away_until = None
            _log.info("database_up")
        self._remember(question, rows)
        return rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _recall(self, question: str, error: StoreError) -> list[Row]:
        with self._lock:
            if self._away_until is None:
                self._away_since = self._monotonic()
                _log.warning("database_down", error=str(error))
            if self._away_until is None or self._monotonic() >= self._away_until:
                self._away_until = self._monotonic() + _AWAY_S
            rows = self._load().get(question)
        if rows is None:
            raise error
        return rows

    def _remember(self, question: str, rows: list[Row]) -> None:
        with self._lock:
            answers = self._load()
            is_same = answers.pop(question, None) == rows
            answers[question] = rows  # at the end, so that the first question is the least recently read
            oldest = next(iter(answers)) if len(answers) > _MOST_ANSWERS else None
            if oldest is not None:
                del answers[oldest]
        if is_same:
            return
        # Losing an answer on a full disk costs nothing while the database is there.
        with suppress(StoreError):
            if oldest is not None:
                self._file.execute("DELETE FROM answers WHERE question = ?", oldest)
            self._file.execute(
                "INSERT INTO answers VALUES (?, ?) ON CONFLICT (question) DO UPDATE SET answer = excluded.answer",
                question,
                json.dumps(rows),
            )

    def _load(self) -> dict[str, list[Row]]:
        if self._answers is None:
            self._answers = {}
            with suppress(StoreError, ValueError):
                for question, answer in self._file.query("SELECT question, answer FROM answers LIMIT ?", _MOST_ANSWERS):
                    self._answers[question] = [tuple(row) for row in json.loads(answer)]
        return self._answers
