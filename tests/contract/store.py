"""One adapter under test; each call opens the client anew, as another process would."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from skewless.contract.errors import StoreError
from skewless.infra.online.memory_store import MemoryReader, MemoryStore
from skewless.infra.online.port import Marked, OnlineReader, OnlineWriter
from skewless.infra.online.redis_store import BlockingReader, RedisReader, RedisWriter
from tests.servers.node import until


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store by its URL, or in memory; ``kind``: for people and for tests that choose."""

    url: str | None = None
    memory: MemoryStore
    kind: str = ""

    def writer(self) -> OnlineWriter:
        return RedisWriter(self.url) if self.url else self.memory

    def put(self, *rows: tuple[bytes, bytes]) -> int:
        writer = self.writer()
        try:
            return writer.put([key for key, _ in rows], [row for _, row in rows])
        finally:
            writer.close()

    def get(self, *keys: bytes) -> list[bytes | None]:
        """Return what the asynchronous reader finds; the blocking one must agree."""
        found = asyncio.run(self._get(keys))
        if self.url:
            reader = BlockingReader(self.url)
            try:
                assert reader.get(keys) == found
            finally:
                reader.close()
        return found

    def marker(self, name: str) -> tuple[int | None, int | None]:
        """Return what the writer and what the reader say."""
        writer = self.writer()
        try:
            return writer.marker(name), asyncio.run(self._marker(name))
        finally:
            writer.close()

    def marked(self, keys: Sequence[bytes], names: Sequence[str]) -> Marked:
        """Return rows and markers as the server of predictions reads them; a callback must be told the same."""

        async def read() -> Marked:
            reader = self._reader()
            told: list[Marked | StoreError] = []
            try:
                reader.ask(keys, names, told.append)
                found = await reader.get_marked(keys, names)
                # A cluster's answer may take another way than the one asked for later.
                await asyncio.to_thread(until, lambda: told)
                assert told == [found]
                return found
            finally:
                await reader.close()

        found = asyncio.run(read())
        if self.url:
            blocking = BlockingReader(self.url)
            try:
                assert blocking.get_marked(keys, names) == found
            finally:
                blocking.close()
        return found

    async def _get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        reader = self._reader()
        try:
            return await reader.get(keys)
        finally:
            await reader.close()

    async def _marker(self, name: str) -> int | None:
        reader = self._reader()
        try:
            return await reader.marker(name)
        finally:
            await reader.close()

    def _reader(self) -> OnlineReader:
        return RedisReader(self.url) if self.url else MemoryReader(self.memory)


def ranked(*words: int, body: bytes = b"") -> bytes:
    """Return a row whose rank is eight unsigned words; those left out are zero."""
    return struct.pack(">8I", *words, *[0] * (8 - len(words))) + body
