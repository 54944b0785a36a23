"""The memory store, read as jobs read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from skewless.infra.online.memory_store import MemoryStore
from skewless.infra.online.port import Binaries, Marked


class BlockingMemoryReader:
    """The blocking side of a ``MemoryStore``."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the row of each key, in order."""
        return [self._store.rows.get(key) for key in (keys.to_pylist() if isinstance(keys, pa.Array) else keys)]

    def get_marked(self, keys: Sequence[bytes], names: Sequence[str]) -> Marked:
        """Return the row of each key and the marker of each name, in order."""
        return self.get(keys), [self._store.markers.get(name) for name in names]

    def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition has been applied, or None."""
        return self._store.marker(name)

    def on_connect(self, work: Callable[[], None]) -> None:
        """Do nothing: no connection is made."""

    def close(self) -> None:
        """Do nothing; the rows stay."""
