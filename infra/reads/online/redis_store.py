"""The adapter of the online store for Redis and Valkey."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from redis.exceptions import MasterDownError, ReadOnlyError

from skewless.contract.errors import StoreError
from skewless.contract.status import BoolArray
from skewless.infra.platform.telemetry.redaction import display_url
from skewless.infra.reads.online.clients import (
    RedisAddress,
    close_async_client,
    dial,
    open_async_client,
    to_store_error,
    translate_errors,
)
from skewless.infra.reads.online.cluster_reader import ClusterReader
from skewless.infra.reads.online.link import StoreLink
from skewless.infra.reads.online.markers import MarkerClient, MarkerSplitter, marker_keys
from skewless.infra.reads.online.port import (
    Binaries,
    Letters,
    OnConnect,
    OnlineAdapter,
    ReadCallback,
    RowsAndMarkers,
    settle,
)
from skewless.infra.reads.online.resp import command, mget
from skewless.infra.reads.online.servers import ClusterServers, LastArgument, RedisClient, Script

_PUT = Path(__file__).with_name("newer_wins.lua").read_text()
_APPEND = Path(__file__).with_name("tile_append.lua").read_text()
_REPLACE = Path(__file__).with_name("tile_swap.lua").read_text()
_DELETE = Path(__file__).with_name("delete_rows.lua").read_text()
_REPLACED = ord("Y")
_POLICY = "noeviction"
_SCAN_COUNT = 1_000
_MARKER = "applied"  # in the keys of markers, see skewless.contract.keys
_NO_MASTER = (ReadOnlyError, MasterDownError)


class RedisWriter(MarkerClient):
    """Implements ``OnlineStore``: the writing side."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        with translate_errors(url):
            for client in self._servers.masters():
                self._check_eviction_policy(client)
            register = self._servers.client.register_script
            self._put, self._append, self._replace = register(_PUT), register(_APPEND), register(_REPLACE)
            self._delete = register(_DELETE)

    def put(self, keys: Binaries, rows: Binaries) -> int:
        """Write each row unless the store holds one of a higher or equal rank."""
        with translate_errors(self._url):
            return int(sum(reply for _, reply in self._servers.call(self._put, keys, rows)))

    def replace(
        self,
        keys: Binaries,
        old: Sequence[bytes | None],
        new: Binaries,
        heads: Sequence[bytes] | None = None,
    ) -> BoolArray:
        """Replace values that have not changed since they were read; return which."""
        heads = [value or b"" for value in old] if heads is None else heads
        new_values = new.to_pylist() if isinstance(new, pa.Array) else new
        # See tile_swap.lua: size of the old value, length of the head, head, new value.
        arguments = [
            len(old_value or b"").to_bytes(8, "little") + len(head).to_bytes(8, "little") + head + value
            for old_value, head, value in zip(old, heads, new_values, strict=True)
        ]
        return np.asarray(self._call_letters(self._replace, keys, arguments) == _REPLACED, dtype=np.bool_)

    def append(self, keys: Binaries, updates: Binaries, marker: tuple[str, int | None]) -> Letters:
        """Append records to states; return a result letter for each key."""
        return self._call_letters(self._append, keys, updates, self._marker_argument(*marker))

    def publish(self, key: bytes, text: bytes) -> None:
        """Set a key that servers read."""
        with translate_errors(self._url):
            self._servers.client.set(key, text)

    def remove(self, keys: Sequence[bytes], marker: LastArgument = lambda _: b" -") -> int:
        """Delete the values of keys; return how many there were."""
        with translate_errors(self._url):
            return sum(reply for _, reply in self._servers.call(self._delete, keys, [b""] * len(keys), marker))

    def delete(self, prefix: str) -> int:
        """Delete every key with a prefix, markers first, in batches; return how many there were."""
        with translate_errors(self._url):
            deleted = sum(map(self.remove, self._scan(prefix, _MARKER)))
            for keys in self._scan(prefix):
                for view, names in groupby(sorted(keys), lambda key: b":".join(key.split(b":", 3)[:3])):
                    deleted += self.remove(list(names), self._marker_argument(f"{view.decode()}:{_MARKER}", None))
            # Those of states again: if this process was suspended, a worker may have set them meanwhile.
            return deleted + sum(map(self.remove, self._scan(prefix, f"{_MARKER}/")))

    def _scan(self, prefix: str, part: str = "") -> Iterator[list[bytes]]:
        """Yield the keys with a prefix and a part after it, in batches."""
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + f"*{part}*"
        for client in self._servers.masters():
            cursor: int | None = None
            while cursor != 0:
                cursor, keys = client.scan(cursor or 0, match=pattern, count=_SCAN_COUNT)
                yield keys

    def clock_offset_us(self) -> int:
        """Return the clock offset in microseconds: of the server with the largest, each the best of three."""
        with translate_errors(self._url):
            # The smallest of three offsets includes the least network delay.
            offsets = (min((_measure_offset(client) for _ in range(3)), key=abs) for client in self._servers.masters())
            return max(offsets, key=abs)

    def _call_letters(
        self, script: Script, keys: Binaries, arguments: Binaries, last: LastArgument | None = None
    ) -> Letters:
        letters = np.zeros(len(keys), dtype=np.uint8)
        with translate_errors(self._url):
            for places, reply in self._servers.call(script, keys, arguments, last):
                # An empty reply: the marker of this server is behind, so it has lost writes (see tile_append.lua).
                if not reply:
                    raise self._lost_error()
                letters[np.asarray(places)] = np.frombuffer(reply, dtype=np.uint8)
        return letters

    def _check_eviction_policy(self, client: Any) -> None:  # noqa: ANN401 - redis-py's clients are untyped
        policy = client.info("memory").get("maxmemory_policy", _POLICY)
        if policy != _POLICY:
            raise StoreError(
                f"Redis at {display_url(self._url)}",
                "may evict rows, so that entities would silently have no features",
                value=f"maxmemory-policy {policy}",
                fix=f"set maxmemory-policy {_POLICY}",
            )


class BlockingReader(RedisClient):
    """The blocking reading side for notebooks and jobs; threads may share it."""

    def __init__(self, url: str) -> None:
        self._on_connect: list[Callable[[], None]] = []
        self._splitter = MarkerSplitter()
        super().__init__(url, self._run_callbacks)
        self._is_cluster = isinstance(self._servers, ClusterServers)

    def on_connect(self, work: Callable[[], None]) -> None:
        """Register a callback for each new connection; it runs before anything is read over it."""
        self._on_connect.append(work)

    def get_with_markers(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return the row of each key and the marker of each name, in order, from the same round trip."""
        marks = [marker_keys(name, spread=self._is_cluster) for name in names]
        with translate_errors(self._url):
            values = self._servers.read(keys, [mark for each in marks for mark in each])
        return self._splitter.split(values, len(keys), marks)

    def _run_callbacks(self) -> None:
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
        # Without a frame of their own: each prediction makes these calls.
        self.start_read, self.busy_poll = self._reader.start_read, self._reader.busy_poll

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, in order, from one round trip."""
        return (await self.get_with_markers(keys, ()))[0]

    async def get_with_markers(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return the row of each key and the marker of each name, in order, from the same round trip."""
        future: asyncio.Future[RowsAndMarkers] = asyncio.get_running_loop().create_future()
        self.start_read(keys, names, partial(settle, future))
        return await future

    async def mark_in_use(self, keys: Sequence[bytes], seconds: int) -> None:
        """Set each key, to expire after ``seconds``."""
        with translate_errors(self._url):
            await self._reader.mark_in_use(keys, seconds)

    async def close(self) -> None:
        """Close all connections."""
        await self._reader.close()


def _measure_offset(client: Any) -> int:  # noqa: ANN401 - redis-py's clients are untyped
    old_value = time.time_ns() // 1_000
    seconds, microseconds = client.time()
    new_values = time.time_ns() // 1_000
    # The way there and the way back are assumed to take equally long.
    return int(seconds * 1_000_000 + microseconds - (old_value + new_values) // 2)


class ServerReader:
    """Keeps one shared connection, opened on first use; callers that arrive while it opens share it.

    Args:
        address: of a server, or of sentinels.
        timeout_s: the timeout of a reply, in seconds.
        on_connect: awaited for each new connection, before anything is read over it.
    """

    def __init__(self, address: RedisAddress, timeout_s: float, on_connect: OnConnect | None = None) -> None:
        self._url = address.url
        self._timeout_s = timeout_s
        self._client = open_async_client(address, timeout_s)
        self._on_connect = on_connect
        self._link: StoreLink | None = None
        # Of the last read: they hardly ever change from one read to the next.
        self._names: tuple[Sequence[str], list[bytes], list[list[bytes]]] = [], [], []
        self._splitter = MarkerSplitter()

    def start_read(self, keys: Sequence[bytes], names: Sequence[str], done: ReadCallback) -> None:
        """Read rows and markers from one round trip, then call ``done`` with them."""
        n = len(keys)
        if names != self._names[0]:
            encoded = [name.encode() for name in names]
            self._names = list(names), encoded, [[each] for each in encoded]
        _, marker_keys, groups = self._names
        if not n and not marker_keys:
            done(([], []))
            return

        def on_reply(reply: Any) -> None:  # noqa: ANN401 - replies have any type
            if isinstance(reply, Exception):
                done(to_store_error(self._url, self._drop_old_master(reply)))
            else:
                done(self._splitter.split(reply, n, groups))

        self._open_link().send(mget(keys, marker_keys), on_reply)

    def busy_poll(self) -> None:
        """Busy-poll for up to 100 us for a reply."""
        if self._link is not None:
            self._link.busy_poll()

    async def mark_in_use(self, keys: Sequence[bytes], seconds: int) -> None:
        """Set each key, to expire after ``seconds``.

        Raises:
            RedisError: the server is unavailable or is not a master.
        """
        for key in keys:
            try:
                await self._open_link().call(command(b"SET", key, b"1", b"EX", b"%d" % seconds))
            except _NO_MASTER as error:
                raise self._drop_old_master(error) from None

    async def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            await self._link.close()
        await close_async_client(self._client)

    def _open_link(self) -> StoreLink:
        if self._link is None or self._link.is_broken:
            self._link = StoreLink(partial(dial, self._client, self._on_connect), self._timeout_s)
        return self._link

    def _drop_old_master(self, error: Exception) -> Exception:
        """Close the connection if the server is no longer the master: the next one asks the sentinels again."""
        if isinstance(error, _NO_MASTER) and self._link is not None:
            self._link.abort(error)
        return error


REDIS = OnlineAdapter(store=RedisWriter, reader=RedisReader, blocking_reader=BlockingReader)
