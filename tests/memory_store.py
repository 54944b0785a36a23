"""An online store of rows in memory, of one process: for tests whose subject is another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from skewless.contract.rows import RANK_BYTES
from skewless.infra.reads.online.port import LOST, Binaries, Marker, ReadCallback, RowsAndMarkers


class MemoryStore:
    """See ``OnlineWriter``."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.markers: dict[str, Marker] = {}
        self._alone = threading.Lock()

    def put(self, keys: Binaries, rows: Binaries) -> int:
        """Write each row unless the store holds one of a higher or equal rank."""
        written = 0
        for key, row in zip(_each(keys), _each(rows), strict=True):
            with self._alone:
                old = self.rows.get(key)
                if old is None or row[:RANK_BYTES] > old[:RANK_BYTES]:
                    self.rows[key] = row
                    written += 1
        return written

    def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition has been applied, or None."""
        mark = self.markers.get(name)
        return None if mark is None else mark.position

    def set_markers(
        self,
        marks: Mapping[str, Marker],
        expected: Mapping[str, int | None] | None = None,  # noqa: ARG002 - nothing is ever lost here
    ) -> None:
        """Record how far partitions were applied, none going back; a marker that covers nothing is none."""
        with self._alone:
            for name, mark in marks.items():
                if mark.position <= LOST:
                    continue
                old = self.markers.get(name, mark)
                self.markers[name] = Marker(max(old.position, mark.position), mark.watermark_us or old.watermark_us)

    def delete(self, prefix: str) -> int:
        """Delete all keys and markers with a prefix."""
        with self._alone:
            keys = [key for key in self.rows if key.startswith(prefix.encode())]
            names = [name for name in self.markers if name.startswith(prefix)]
            for key in keys:
                del self.rows[key]
            for name in names:
                del self.markers[name]
        return len(keys) + len(names)

    def clock_offset_us(self) -> int:
        """Return 0: there is no other clock."""
        return 0

    def close(self) -> None:
        """Do nothing; the rows stay."""


class MemoryReader:
    """The asynchronous side of a ``MemoryStore``."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, in order."""
        return [self._store.rows.get(key) for key in keys]

    def start_read(self, keys: Sequence[bytes], names: Sequence[str], done: ReadCallback) -> None:
        """Call ``done`` at once with the row of each key and the marker of each name."""
        rows, markers = self._store.rows, self._store.markers
        done(([rows.get(key) for key in keys], [markers.get(name) for name in names]))

    def busy_poll(self) -> None:
        """Do nothing: replies do not keep anybody waiting."""

    async def get_with_markers(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return the row of each key and the marker of each name, in order."""
        return await self.get(keys), [self._store.markers.get(name) for name in names]

    async def mark_in_use(self, keys: Sequence[bytes], seconds: int) -> None:
        """Do nothing: nobody removes rows here."""

    async def close(self) -> None:
        """Do nothing; the rows stay."""


class BlockingMemoryReader:
    """The blocking side of a ``MemoryStore``."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the row of each key, in order."""
        return [self._store.rows.get(key) for key in _each(keys)]

    def get_with_markers(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return the row of each key and the marker of each name, in order."""
        return self.get(keys), [self._store.markers.get(name) for name in names]

    def on_connect(self, work: Callable[[], None]) -> None:
        """Do nothing: no connection is made."""

    def close(self) -> None:
        """Do nothing; the rows stay."""


def _each(values: Binaries) -> list[bytes]:
    return list(values.to_pylist() if isinstance(values, pa.Array) else values)
