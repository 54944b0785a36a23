"""The adapter of the online store for Redis and Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.contract.status import BoolArray
from skewless.infra.host.redaction import display_url
from skewless.infra.online.address import RedisAddress
from skewless.infra.online.clients import open_client
from skewless.infra.online.cluster_reader import ClusterReader
from skewless.infra.online.cluster_servers import ClusterServers
from skewless.infra.online.failures import translated
from skewless.infra.online.markers import Markers, marker_keys, split
from skewless.infra.online.port import Binaries, Letters, Marked, Marker, OnConnect, OnlineAdapter, settle
from skewless.infra.online.redis_lease import RedisLease
from skewless.infra.online.scan import delete_keys
from skewless.infra.online.server_reader import ServerReader
from skewless.infra.online.servers import Last, Script, Servers, SingleServer

_NEWER_WINS = Path(__file__).with_name("newer_wins.lua").read_text()
_APPEND = Path(__file__).with_name("tile_append.lua").read_text()
_SWAP = Path(__file__).with_name("tile_swap.lua").read_text()
_SWAPPED = ord("Y")
_POLICY = "noeviction"
_WRITE_S = 30.0  # a server may run a large script or load its file


class RedisWriter:
    """Implements ``OnlineStore``: the writing side."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._servers = _open(url)
        with translated(url):
            for client in self._servers.masters():
                self._refuse_eviction(client)
            register = self._servers.client.register_script
            self._newer_wins, self._append, self._swap = register(_NEWER_WINS), register(_APPEND), register(_SWAP)
            self._markers = Markers(self._servers, display_url(url))

    def put(self, keys: Binaries, rows: Binaries) -> int:
        """Write each row unless the store holds one of a higher or equal rank."""
        with translated(self._url):
            return self._servers.write(self._newer_wins, keys, rows)

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the value of each key, in order; None: no value."""
        with translated(self._url):
            return self._servers.read(keys)

    def replace(
        self,
        keys: Binaries,
        old: Sequence[bytes | None],
        new: Binaries,
        heads: Sequence[bytes] | None = None,
    ) -> BoolArray:
        """Replace values that have not changed since they were read; return which."""
        heads = [value or b"" for value in old] if heads is None else heads
        after = new.to_pylist() if isinstance(new, pa.Array) else new
        arguments = [
            len(before or b"").to_bytes(8, "little") + len(head).to_bytes(8, "little") + head + value
            for before, head, value in zip(old, heads, after, strict=True)
        ]
        return np.asarray(self._letters(self._swap, keys, arguments) == _SWAPPED, dtype=np.bool_)

    def append(self, keys: Binaries, updates: Binaries, marker: tuple[str, int | None]) -> Letters:
        """Append records to states; return a result letter for each key."""
        return self._letters(self._append, keys, updates, self._markers.guard(*marker))

    def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition is certainly applied, or None."""
        with translated(self._url):
            return self._markers.get(name)

    def peek_marks(self, names: Sequence[str]) -> list[Marker | None]:
        """Return markers by name, from one round trip."""
        with translated(self._url):
            return self._markers.peek(names)

    def set_markers(self, marks: Mapping[str, Marker], expected: Mapping[str, int | None] | None = None) -> None:
        """Record applied positions; fails on a server that was replaced or restarted after ``marker``."""
        if marks:
            with translated(self._url):
                self._markers.set(marks, expected)

    def refresh_markers(self, marks: Mapping[str, Marker]) -> None:
        """Record new watermarks; positions stay unchanged."""
        if marks:
            with translated(self._url):
                self._markers.refresh(marks)

    def publish(self, key: bytes, text: bytes) -> None:
        """Set a key that servers read."""
        with translated(self._url):
            self._servers.client.set(key, text)

    def delete(self, prefix: str) -> int:
        """Delete every key with a prefix, in batches; return how many there were."""
        with translated(self._url):
            return sum(delete_keys(client, prefix) for client in self._servers.masters())

    def clock_offset_us(self) -> int:
        """Return the clock offset in microseconds: of the server with the largest, each the best of three."""
        with translated(self._url):
            offsets = (min((_offset(client) for _ in range(3)), key=abs) for client in self._servers.masters())
            return max(offsets, key=abs)

    def close(self) -> None:
        """Close all connections."""
        self._servers.close()

    def _letters(self, script: Script, keys: Binaries, arguments: Binaries, guard: Last | None = None) -> Letters:
        letters = np.zeros(len(keys), dtype=np.uint8)
        with translated(self._url):
            for answer in self._servers.call(script, keys, arguments, guard):
                if not answer.reply:
                    raise self._markers.lost()
                letters[np.asarray(answer.places)] = np.frombuffer(answer.reply, dtype=np.uint8)
        return letters

    def _refuse_eviction(self, client: Any) -> None:  # noqa: ANN401 - redis-py's clients are untyped
        policy = client.info("memory").get("maxmemory_policy", _POLICY)
        if policy != _POLICY:
            raise StoreError(
                f"Redis at {display_url(self._url)}",
                "may evict rows, so that entities would silently have no features",
                value=f"maxmemory-policy {policy}",
                fix=f"set maxmemory-policy {_POLICY}",
            )


class BlockingReader:
    """The blocking reading side for notebooks and jobs; threads may share it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._on_connect: list[Callable[[], None]] = []
        self._servers = _open(url, self._connected)
        self._spread = isinstance(self._servers, ClusterServers)

    def on_connect(self, work: Callable[[], None]) -> None:
        """Register a callback for each new connection; it runs before anything is read over it."""
        self._on_connect.append(work)

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the row of each key, in order, from one round trip; None: no row."""
        with translated(self._url):
            return self._servers.read(keys)

    def get_marked(self, keys: Sequence[bytes], names: Sequence[str]) -> Marked:
        """Return the row of each key and the marker of each name, in order, from the same round trip."""
        marks = [marker_keys(name, spread=self._spread) for name in names]
        with translated(self._url):
            values = self._servers.read(keys, [mark for each in marks for mark in each])
        return split(values, len(keys), marks)

    def close(self) -> None:
        """Close all connections."""
        self._servers.close()

    def _connected(self) -> None:
        for work in self._on_connect:
            work()


class RedisReader:
    """The asynchronous reading side for the prediction server, over one connection to each server.

    Args:
        url: the store's address.
        timeout_s: the timeout of a reply, in seconds.
        on_connect: awaited for each new connection, before anything is read over it.
    """

    def __init__(self, url: str, timeout_s: float = 2.0, on_connect: OnConnect | None = None) -> None:
        self._url = url
        address = RedisAddress.parse(url)
        kind = ClusterReader if address.kind == "cluster" else ServerReader
        self._reader: ClusterReader | ServerReader = kind(address, timeout_s, on_connect)

    def ask(self, keys: Sequence[bytes], names: Sequence[str], done: Callable[[Marked | StoreError], None]) -> None:
        """Call ``done`` with the result or error of ``get_marked``."""
        self._reader.ask(keys, names, done)

    def linger(self) -> None:
        """Busy-poll for up to 100 us for a reply."""
        self._reader.linger()

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, in order, from one round trip."""
        return (await self.get_marked(keys, ()))[0]

    async def get_marked(self, keys: Sequence[bytes], names: Sequence[str]) -> Marked:
        """Return the row of each key and the marker of each name, in order, from the same round trip."""
        future: asyncio.Future[Marked] = asyncio.get_running_loop().create_future()
        self.ask(keys, names, partial(settle, future))
        return await future

    async def hold(self, keys: Sequence[bytes], seconds: int) -> None:
        """Set each key, to expire after ``seconds``."""
        with translated(self._url):
            await self._reader.hold(keys, seconds)

    async def close(self) -> None:
        """Close all connections."""
        await self._reader.close()


REDIS = OnlineAdapter(store=RedisWriter, reader=RedisReader, blocking_reader=BlockingReader, lease=RedisLease)


def _open(url: str, on_connect: Callable[[], None] | None = None) -> Servers:
    address = RedisAddress.parse(url)
    with translated(url):
        client = open_client(address, _WRITE_S, on_connect)
    return ClusterServers(client) if address.kind == "cluster" else SingleServer(client)


def _offset(client: Any) -> int:  # noqa: ANN401 - redis-py's clients are untyped
    before = time.time_ns() // 1_000
    seconds, microseconds = client.time()
    after = time.time_ns() // 1_000
    return int(seconds * 1_000_000 + microseconds - (before + after) // 2)
