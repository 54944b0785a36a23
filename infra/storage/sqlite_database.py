"""A project's database in one SQLite file, for the processes of one machine."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from skewless.contract.errors import StoreError
from skewless.infra.storage.database import BUSY_S, Database, Row, Value
from skewless.infra.storage.durable import disk_error, lock_handle, make_folder
from skewless.infra.storage.schema import STEPS, Step

_PRIVATE = 0o600
_RETRY_S = 0.01


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
            try:
                make_folder(path.parent)
                gate, lock = (stack.enter_context(Path(f"{path}.{end}").open("ab")) for end in ("gate", "lock"))
            except OSError as error:
                raise disk_error(path, error) from error
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
