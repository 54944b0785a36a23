"""An online store in a SQLite file: a second adapter, for no user, which shows that the port is the seam."""

from __future__ import annotations

import sqlite3

from skewless.infra.online.port import OnlineAdapter
from tests.sqlite_store.database import Database, now_us
from tests.sqlite_store.readers import SqliteBlockingReader, SqliteReader
from tests.sqlite_store.store import SqliteStore

_ASKS_PER_TERM = 3


class SqliteLease:
    """See ``StoreLease``."""

    def __init__(self, url: str, project: str, holder: str, ttl_s: float) -> None:
        self.holder = holder
        self.ttl_s = ttl_s
        self._project = project
        self._database = Database(url, ttl_s / _ASKS_PER_TERM)

    def take(self, floor: int) -> int | None:
        """Return the fencing token if the lease was free, or this holder's already; None if somebody else has it."""
        with self._database.transaction() as connection:
            token, holder = self._standing(connection)
            if holder == self.holder:
                return token
            if holder is not None:
                return None
            token = max(token, floor) + 1
            row = (self._project, token, self.holder, now_us() + int(self.ttl_s * 1_000_000))
            connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", row)
            return token

    def renew(self) -> bool:
        """Say whether the lease is still this holder's; it is for another term then."""
        return self._change("until_us = ?", now_us() + int(self.ttl_s * 1_000_000))

    def release(self) -> None:
        """Let others take the lease at once, if it is this holder's."""
        self._change("holder = ?", None)

    def read_holder(self) -> str | None:
        """Return who holds the lease now."""
        with self._database.transaction("DEFERRED") as connection:
            return self._standing(connection)[1]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _change(self, change: str, value: int | None) -> bool:
        query = f"UPDATE leases SET {change} WHERE project = ? AND holder = ? AND until_us > ?"
        with self._database.transaction() as connection:
            return connection.execute(query, (value, self._project, self.holder, now_us())).rowcount > 0

    def _standing(self, connection: sqlite3.Connection) -> tuple[int, str | None]:
        """Return the newest token, and who holds the lease; None: nobody."""
        query = "SELECT token, CASE WHEN until_us > ? THEN holder END FROM leases WHERE project = ?"
        found: tuple[int, str | None] | None = connection.execute(query, (now_us(), self._project)).fetchone()
        return (0, None) if found is None else found


SQLITE = OnlineAdapter(store=SqliteStore, reader=SqliteReader, blocking_reader=SqliteBlockingReader, lease=SqliteLease)
