"""One SQLite file that threads and processes share: readers never wait, writers wait for each other (WAL)."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from skewless.contract.errors import StoreError
from skewless.infra.reads.online.port import LOST, Marker, RowsAndMarkers

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL, until_us INTEGER);
CREATE TABLE IF NOT EXISTS markers (name BLOB PRIMARY KEY, position INTEGER NOT NULL, watermark_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS life (id BLOB PRIMARY KEY);
INSERT INTO life SELECT randomblob(16) WHERE NOT EXISTS (SELECT 1 FROM life);
"""
_HOLD = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)"
_KEYS_PER_QUERY = 500
_PAUSE_S = 0.01


class Database:
    """One connection, opened when it is needed and given up after an error; any thread may use it, one at a time.

    Args:
        url: ``sqlite:///`` and an absolute path.
        timeout_s: how long another process may hold the file up.

    Raises:
        StoreError: the URL is of another form.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.path = Path(url.removeprefix("sqlite://"))
        if not url.startswith("sqlite:////"):
            raise StoreError("setting 'redis_url'", "is not the URL of a file", value=url, fix="write sqlite:////PATH")
        self._timeout_s = timeout_s
        self._alone = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._inherited: list[sqlite3.Connection] = []

    @contextmanager
    def transaction(self, mode: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Lend the connection inside a transaction, which an error rolls back.

        Raises:
            StoreError: the file cannot be used, or is held up for too long.
        """
        self._leave_to_parent()
        with self._alone:
            try:
                connection = self._open()
                connection.execute(f"BEGIN {mode}")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self.close()
                raise self.failure(f"did not answer: {error}", "see to the file, then run again") from error

    def read(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return the value of each key and the marker of each name as they are at one moment."""
        if not keys and not names:
            return [], []
        with self.transaction("DEFERRED") as connection:
            rows, marks = read_values(connection, keys), read_marks(connection, names)
        return rows, [None if mark is None or mark.position <= LOST else mark for mark in marks]

    def hold(self, keys: Sequence[bytes], seconds: int) -> None:
        """Set each key, to expire after ``seconds``."""
        with self.transaction() as connection:
            connection.executemany(_HOLD, [(key, b"1", now_us() + seconds * 1_000_000) for key in keys])

    def failure(self, problem: str, fix: str) -> StoreError:
        """Return an error of this file."""
        return StoreError(f"SQLite at {self.path}", problem, fix=fix)

    def open(self) -> None:
        """Open the connection, if it is not.

        Raises:
            StoreError: the file cannot be used.
        """
        with self.transaction("DEFERRED"):
            pass

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        self._leave_to_parent()
        with self._alone:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self.path, timeout=self._timeout_s, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._timeout_s
        # SQLite does not wait here: several processes may make the file at once.
        while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)
        # A power cut takes the newest transactions, and none before those that it leaves.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute("COMMIT")

    def _leave_to_parent(self) -> None:
        """Take no connection over a fork, and close none there: SQLite forbids both."""
        if self._pid != os.getpid():
            self._pid, self._alone = os.getpid(), threading.RLock()
            self._inherited += [] if self._connection is None else [self._connection]
            self._connection = None


def read_values(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[bytes | None]:
    """Return the value of each key that has not expired."""
    found: dict[bytes, bytes] = {}
    for first in range(0, len(keys), _KEYS_PER_QUERY):
        part = keys[first : first + _KEYS_PER_QUERY]
        query = f"SELECT key, value FROM entries WHERE key IN ({_marks(part)}) AND coalesce(until_us > ?, TRUE)"
        found |= connection.execute(query, [*part, now_us()]).fetchall()
    return [found.get(key) for key in keys]


def read_marks(connection: sqlite3.Connection, names: Sequence[str]) -> list[Marker | None]:
    """Return the marker of each name as it stands."""
    query = "SELECT position, watermark_us FROM markers WHERE name = ?"
    rows = (connection.execute(query, [name.encode()]).fetchone() for name in names)
    return [None if row is None else Marker(*row) for row in rows]


def now_us() -> int:
    """Return the clock of the store, which is this machine's, microseconds."""
    return time.time_ns() // 1_000


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
