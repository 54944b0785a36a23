"""The reading sides of a store whose client blocks: calls of the prediction server run in threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, Protocol

import pyarrow as pa

from skewless.contract.errors import SkewlessError, StoreError
from skewless.infra.reads.online.port import Binaries, OnConnect, ReadCallback, RowsAndMarkers, settle


class BlockingClient(Protocol):
    """The client of a store; several threads may use it at once."""

    def read(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return the row of each key and the marker of each name, as of one point in time."""
        ...

    def hold(self, keys: Sequence[bytes], seconds: int) -> None:
        """Set each key, to expire after ``seconds``."""
        ...

    def failure(self, problem: str, fix: str) -> StoreError:
        """Return an error of this store."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class ThreadedBlockingReader:
    """Implements ``BlockingOnlineReader``: a connection begins with the first read, or the first after an error."""

    def __init__(self, client: BlockingClient) -> None:
        self._client = client
        self._work: list[Callable[[], None]] = []
        self._is_connected = False

    def on_connect(self, work: Callable[[], None]) -> None:
        """Register a callback for each connection; it runs before anything is read over it."""
        self._work.append(work)

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the row of each key, in order."""
        return self.get_with_markers(keys.to_pylist() if isinstance(keys, pa.Array) else keys, [])[0]

    def get_with_markers(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return the row of each key and the marker of each name, in order, as of one point in time."""
        if not self._is_connected:
            for work in self._work:
                work()
            self._is_connected = True
        try:
            return self._client.read(list(keys), names)
        except StoreError:
            self._is_connected = False
            raise

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class _Read(NamedTuple):
    """A read that may wait until ``deadline``, in seconds of ``time.monotonic``."""

    keys: list[bytes]
    names: list[str]
    done: ReadCallback
    deadline: float


class ThreadedReader:
    """Implements ``OnlineReader``: reads that wait for a thread share a call.

    Args:
        client: of the store.
        timeout_s: the timeout of a read in seconds.
        on_connect: awaited before the first read, and before the first read after an error.
        calls: the greatest number of calls at once.
        size: the greatest number of keys and names of the reads that share a call.
    """

    def __init__(
        self, client: BlockingClient, timeout_s: float, on_connect: OnConnect | None, *, calls: int, size: int
    ) -> None:
        self._client, self._timeout_s, self._on_connect = client, timeout_s, on_connect
        self._calls, self._size = calls, size
        self._is_connected = False
        self._connecting = asyncio.Lock()
        self._threads = ThreadPoolExecutor(calls, thread_name_prefix="online-reads")
        self._waiting: list[_Read] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def start_read(self, keys: Sequence[bytes], names: Sequence[str], done: ReadCallback) -> None:
        """Read rows and markers as of one point in time, then call ``done`` with them."""
        if not len(keys) and not names:
            done(([], []))
            return
        self._waiting.append(_Read(list(keys), list(names), done, time.monotonic() + self._timeout_s))
        self._start_calls()

    def busy_poll(self) -> None:
        """Do nothing: a thread waits for the reply."""

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, in order."""
        return (await self.get_with_markers(keys, ()))[0]

    async def get_with_markers(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return the row of each key and the marker of each name, in order, as of one point in time."""
        reply: asyncio.Future[RowsAndMarkers] = asyncio.get_running_loop().create_future()
        self.start_read(keys, names, partial(settle, reply))
        return await reply

    async def mark_in_use(self, keys: Sequence[bytes], seconds: int) -> None:
        """Set each key, to expire after ``seconds``."""
        await self._connect()
        await asyncio.get_running_loop().run_in_executor(self._threads, self._client.hold, list(keys), seconds)

    async def close(self) -> None:
        """Wait for the reads in progress, and close the connections."""
        while self._tasks:
            await asyncio.gather(*self._tasks)
        self._threads.submit(self._client.close)
        await asyncio.to_thread(self._threads.shutdown)

    def _start_calls(self) -> None:
        while self._waiting and len(self._tasks) < self._calls:
            task = asyncio.get_running_loop().create_task(self._answer(self._take_reads()))
            self._tasks.add(task)
            task.add_done_callback(self._end_call)

    def _end_call(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start_calls()

    def _take_reads(self) -> list[_Read]:
        """Return the reads that wait and fit one call, at least one."""
        size = count = 0
        for read in self._waiting:
            size += len(read.keys) + len(read.names)
            if count and size > self._size:
                break
            count += 1
        reads, self._waiting = self._waiting[:count], self._waiting[count:]
        return reads

    async def _answer(self, reads: Sequence[_Read]) -> None:
        keys = list(dict.fromkeys(key for read in reads for key in read.keys))
        names = list(dict.fromkeys(name for read in reads for name in read.names))
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(reads[0].deadline - time.monotonic()):
                await self._connect()
                rows, marks = await loop.run_in_executor(self._threads, self._client.read, keys, names)
        except (SkewlessError, TimeoutError) as error:
            self._is_connected = False
            problem = f"did not answer within {self._timeout_s:g} s"
            late = self._client.failure(problem, "check the network, or run again")
            for read in reads:
                read.done(error if isinstance(error, StoreError) else late)
            return
        row_of, mark_of = dict(zip(keys, rows, strict=True)), dict(zip(names, marks, strict=True))
        for read in reads:
            read.done(([row_of[key] for key in read.keys], [mark_of[name] for name in read.names]))

    async def _connect(self) -> None:
        """Run the callback before anything is read."""
        async with self._connecting:
            if self._on_connect is not None and not self._is_connected:
                await self._on_connect()
            self._is_connected = True
