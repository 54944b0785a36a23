"""One online store under test; each call opens it anew, as another process would."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from skewless.contract.errors import StoreError
from skewless.infra.reads.online.port import (
    BlockingOnlineReader,
    OnlineReader,
    OnlineStore,
    OnlineWriter,
    RowsAndMarkers,
)
from skewless.infra.reads.online.store import open_blocking_reader, open_online_reader, open_online_store
from tests.memory_store import BlockingMemoryReader, MemoryReader, MemoryStore
from tests.worlds.waiting import until


@dataclass(frozen=True, kw_only=True)
class RowStore:
    """Rows and markers of a store, or in memory."""

    writer: Callable[[], OnlineWriter]
    reader: Callable[[], OnlineReader]
    blocking_reader: Callable[[], BlockingOnlineReader]

    @classmethod
    def in_memory(cls) -> RowStore:
        """Return those of the store that unit tests read and write."""
        memory = MemoryStore()
        return cls(
            writer=lambda: memory,
            reader=lambda: MemoryReader(memory),
            blocking_reader=lambda: BlockingMemoryReader(memory),
        )

    @classmethod
    def at(cls, url: str) -> RowStore:
        """Return those of an online store."""
        return cls(
            writer=lambda: open_online_store(url),
            reader=lambda: open_online_reader(url, 20.0),
            blocking_reader=lambda: open_blocking_reader(url),
        )

    def put(self, *rows: tuple[bytes, bytes]) -> int:
        with closing(self.writer()) as writer:
            return writer.put([key for key, _ in rows], [row for _, row in rows])

    def get(self, *keys: bytes) -> list[bytes | None]:
        """Return what the asynchronous reader finds; the blocking one must agree."""
        found = asyncio.run(self._get(keys))
        with closing(self.blocking_reader()) as reader:
            assert reader.get(keys) == found
        return found

    def marker(self, name: str) -> tuple[int | None, int | None]:
        """Return where a marker stands, as the writer and as the readers say."""
        with closing(self.writer()) as writer:
            mark = self.marked([], [name])[1][0]
            return writer.marker(name), None if mark is None else mark.position

    def marked(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return rows and markers as the prediction server reads them; a callback must get the same."""
        found = asyncio.run(self._marked(keys, names))
        with closing(self.blocking_reader()) as reader:
            assert reader.get_with_markers(keys, names) == found
        return found

    async def _get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        reader = self.reader()
        try:
            return await reader.get(keys)
        finally:
            await reader.close()

    async def _marked(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        reader = self.reader()
        told: list[RowsAndMarkers | StoreError] = []
        try:
            reader.start_read(keys, names, told.append)
            found = await reader.get_with_markers(keys, names)
            # A cluster's answer may take another way than the one asked for later.
            await asyncio.to_thread(until, lambda: told)
            assert told == [found]
            return found
        finally:
            await reader.close()


@dataclass(frozen=True, kw_only=True)
class StorePlace:
    """Where an online store is.

    Args:
        kind: as the suite calls it.
        url: of an empty store.
        lose: makes it lose all that it holds.
        away: the URL of a store of this kind that cannot be reached.
    """

    kind: str
    url: str
    lose: Callable[[], object]
    away: str

    @property
    def rows(self) -> RowStore:
        """Its rows and markers."""
        return RowStore.at(self.url)

    def store(self) -> closing[OnlineStore]:
        """Return its writing side, to be closed."""
        return closing(open_online_store(self.url))


def ranked(*words: int, body: bytes = b"") -> bytes:
    """Return a row whose rank is eight unsigned words; missing words are zero."""
    return struct.pack(">8I", *words, *[0] * (8 - len(words))) + body
