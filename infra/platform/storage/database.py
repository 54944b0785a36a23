"""The database of a project: SQLite in the state folder, or PostgreSQL for several machines; both behave alike.

All statements are in the SQL that both understand, with ``?`` for values. Writes of several statements, or that depend
on a read, are in a transaction, and there is one such writer at a time.
"""

from __future__ import annotations

import json
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage.schema import STEPS, Step

if TYPE_CHECKING:
    from skewless.infra.platform.storage.sqlite_database import AnswerMemory

Row = tuple[Any, ...]
Connection = Any  # a DB-API connection of sqlite3 or psycopg
Value = str | int | float | None
BUSY_S = 10.0
_MOST_IDLE = 4


class Database(ABC):
    """The database at one address. Any thread may use an object.

    Attributes:
        is_shared: processes of several machines may use it.
        concatenate: name of the SQL function that joins the texts of rows with a separator.

    Args:
        name: of the database in errors, without a password.
        steps: the versions of the schema; a database has version ``len(steps)``.
    """

    is_shared = False
    concatenate: ClassVar[str]

    def __init__(self, name: str, steps: Sequence[Step] = STEPS) -> None:
        self.name = name
        self._steps = steps
        self._transaction = threading.local()
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._inherited: list[Connection] = []
        self._pid = os.getpid()
        self._is_checked = False
        self._memory: AnswerMemory | None = None

    @contextmanager
    def transaction(self, *, is_alone: bool = True) -> Iterator[None]:
        """Execute all statements of the block, in this thread, or none of them; other writers wait.

        A transaction inside another one is a part of it. So a job can check its lease and write in one transaction.

        Args:
            is_alone: False: other writers may wait only for the rows that the block changes.

        Raises:
            StoreError: the database is unavailable, or was busy for too long; nothing was written.
        """
        if self._current is not None:
            yield
            return
        begin = self._begin if is_alone else self._begin_shared
        with self._borrow() as connection, self._all_or_nothing(connection, begin):
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads of the block, in this thread, see one state of the database; writers do not wait.

        Raises:
            StoreError: the database is unavailable.
        """
        with self._borrow() as connection, self._all_or_nothing(connection, self._begin_snapshot):
            yield

    @abstractmethod
    def hold_lock(self, name: str, *, shared: bool = False) -> AbstractContextManager[None]:
        """Wait for a lock of the project, and hold it during the block; new holders queue behind a waiting one.

        It gives an order, and is never a fence: a process that was cut off from the database for about 10 seconds has
        lost the lock and does not know. So the write in the block must fail if another holder wrote before.
        Do not wait for a lock in a transaction. A wait of more than 10 seconds is logged.

        Args:
            name: of the lock.
            shared: admit other shared holders at the same time.

        Raises:
            StoreError: the database is unavailable.
        """

    def execute(self, sql: str, *values: Value) -> list[Row]:
        """Execute a statement that writes; return its rows. Without a transaction it is one.

        Raises:
            StoreError: the database is unavailable, or was busy for too long.
        """
        with self._borrow() as connection, self._translate_errors():
            return self._run(connection, sql, values)

    def query(self, sql: str, *values: Value) -> list[Row]:
        """Return the rows of a statement that reads.

        Raises:
            StoreError: the database is unavailable.
        """
        if not self.exists():
            return []
        if self._memory is None or self._current is not None:  # a read that decides about a write must be current
            return self.execute(sql, *values)
        return self._memory.read(json.dumps([sql, *values]), lambda: self.execute(sql, *values))

    def remember(self, memory: AnswerMemory) -> None:
        """Let reads outside of transactions return their last rows while the database is down, in this process."""
        self._memory = memory

    def down_s(self) -> float | None:
        """Return for how many seconds reads have been answered from memory; None: the database answers."""
        return None if self._memory is None else self._memory.away_s()

    def outages(self) -> int:
        """Return how often it has come back: the answers of two reads as it fails may not fit together."""
        return 0 if self._memory is None else self._memory.outages

    def schema_version(self) -> int:
        """Return the version of the schema; 0: the database has no tables yet."""
        if not self.exists():
            return 0
        with closing(self._connect()) as connection, self._translate_errors():
            return self._read_version(connection)

    def upgrade(self, check: Callable[[], object] = lambda: None) -> int:
        """Bring the schema to the current version; return the version before. A kill leaves the old version.

        Args:
            check: called in the transaction before tables are changed; its error leaves them as they are.

        Raises:
            StoreError: the database is unavailable, or its schema is newer than this program.
        """
        with closing(self._connect()) as connection, self._translate_errors():
            return self._upgrade(connection, check)

    def close(self) -> None:
        """Close the connections that nobody uses; the next statement opens one."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._is_checked = False  # by then there may be another database at the address
        for connection in idle:
            connection.close()

    @abstractmethod
    def scrub(self) -> None:
        """Remove values that were deleted or replaced from the files of the database, as far as it has them.

        Raises:
            StoreError: the database is unavailable, or was busy for too long.
        """

    @abstractmethod
    def exists(self) -> bool:
        """Return whether there can be anything to read."""

    def _was_replaced(self) -> bool:
        """Return whether there is another database at the address since the last call."""
        return False

    @abstractmethod
    def now_us(self) -> int:
        """Return the time of the database, microseconds: one clock for all machines."""

    @abstractmethod
    def _connect(self) -> Connection:
        """Open a connection that commits each statement unless a transaction was begun."""

    @abstractmethod
    def _begin(self, connection: Connection) -> None:
        """Begin a transaction, and wait until no other writer is active."""

    def _begin_shared(self, connection: Connection) -> None:
        """Begin a transaction next to other writers, if the database has several."""
        self._begin(connection)

    @abstractmethod
    def _begin_snapshot(self, connection: Connection) -> None:
        """Begin a transaction whose reads see one state."""

    @abstractmethod
    def _run(self, connection: Connection, sql: str, values: Sequence[Value]) -> list[Row]:
        """Execute a statement and return its rows."""

    @abstractmethod
    def _has_version(self, connection: Connection) -> bool:
        """Return whether the database has the table of the schema's version."""

    @abstractmethod
    def _translate_errors(self) -> AbstractContextManager[None]:
        """Raise errors of the library as StoreError."""

    @contextmanager
    def _all_or_nothing(self, connection: Connection, begin: Callable[[Connection], None]) -> Iterator[None]:
        with self._translate_errors():
            begin(connection)
        self._transaction.connection = connection
        try:
            yield
            with self._translate_errors():
                connection.execute("COMMIT")
        except BaseException:
            # The connection may be lost; then the server has rolled back.
            with suppress(Exception):
                connection.execute("ROLLBACK")
            raise
        finally:
            self._transaction.connection = None

    @property
    def _current(self) -> Connection | None:
        """The connection of this thread's transaction."""
        return getattr(self._transaction, "connection", None)

    @contextmanager
    def _borrow(self) -> Iterator[Connection]:
        """Yield a connection that no other thread uses: that of the transaction, an idle one, or a new one."""
        if self._current is not None:
            yield self._current
            return
        connection = self._take_idle() or self._open()
        try:
            yield connection
        except BaseException:
            connection.close()  # it may be lost, or be anywhere in a statement
            raise
        self._put_back(connection)

    def _put_back(self, connection: Connection) -> None:
        with self._lock:
            if is_kept := len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
        if not is_kept:
            connection.close()

    def _take_idle(self) -> Connection | None:
        with self._lock:
            # A forked child must not use its parent's connections: both would write to one socket, and closing a file
            # drops SQLite's locks on it for the whole process. So it leaves them open.
            if self._pid != os.getpid():
                self._pid, self._inherited, self._idle = os.getpid(), self._idle, []
            if self._was_replaced():
                for connection in self._idle:
                    connection.close()
                self._idle, self._is_checked = [], False
            return self._idle.pop() if self._idle else None

    def _open(self) -> Connection:
        connection = self._connect()
        try:
            self._check_version(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_version(self, connection: Connection) -> None:
        if self._is_checked:
            return
        with self._translate_errors():
            version = self._read_version(connection)
            if version == 0:
                version = self._upgrade(connection) or len(self._steps)
        self._reject_newer(version)
        if version < len(self._steps):
            raise StoreError(
                self.name,
                f"has schema {version}, and this release needs schema {len(self._steps)}",
                fix="stop all processes of the project, and run `skewless apply`",
            )
        self._is_checked = True

    def _upgrade(self, connection: Connection, check: Callable[[], object] = lambda: None) -> int:
        with self._all_or_nothing(connection, self._begin):
            before = self._read_version(connection)
            self._reject_newer(before)
            if before == len(self._steps):
                return before
            if before:
                check()
            for statement in (statement for step in self._steps[before:] for statement in step):
                if isinstance(statement, str):
                    self._run(connection, statement, ())
                else:
                    statement(partial(self._run, connection))
            self._run(connection, "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)", ())
            self._run(connection, "DELETE FROM schema_version", ())
            self._run(connection, "INSERT INTO schema_version VALUES (?)", (len(self._steps),))
        return before

    def _read_version(self, connection: Connection) -> int:
        if not self._has_version(connection):
            return 0
        rows = self._run(connection, "SELECT version FROM schema_version", ())
        return int(rows[0][0]) if rows else 0

    def _reject_newer(self, version: int) -> None:
        if version > len(self._steps):
            raise StoreError(
                self.name,
                f"has schema {version}, and this release knows schema {len(self._steps)} at most",
                fix="install the release that wrote it, or a later one",
            )
