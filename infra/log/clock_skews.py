"""Offsets of the clocks of stream workers to the clock of the online store, for the proof of their states."""

from __future__ import annotations

from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents


class ClockSkews:
    """The largest offset of the workers of each event source, in the database.

    The replay compares times of a server with times of a worker on another machine. So it must know how far both may be
    wrong.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._documents = Documents(database, "clock_skew")

    def record(self, source: str, skew_us: int) -> None:
        """Record an offset, microseconds, if it is larger than all before.

        Raises:
            StoreError: the database is unavailable.
        """
        if skew_us <= self.largest(source):
            return
        with self._database.transaction():
            self._documents.put(source, max(skew_us, self.largest(source)))

    def largest(self, source: str) -> int:
        """Return the largest offset so far, microseconds; 0: none was measured."""
        return int(self._documents.get(source) or 0)
