"""The reading sides of an online store in a SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa

from skewless.contract.errors import SkewlessError, StoreError
from skewless.infra.reads.online.port import Binaries, OnConnect, ReadCallback, RowsAndMarkers, settle
from tests.sqlite_store.database import Database, now_us

_READ_S = 30.0
_HOLD = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)"


class SqliteBlockingReader:
    """See ``BlockingOnlineReader``."""

    def __init__(self, url: str) -> None:
        self._work: list[Callable[[], None]] = []
        self._database = Database(url, _READ_S, self._connected)

    def on_connect(self, work: Callable[[], None]) -> None:
        """Have something done whenever a connection was made, before anything is read over it."""
        self._work.append(work)

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the row of each key, in order."""
        return self.get_with_markers(keys.to_pylist() if isinstance(keys, pa.Array) else keys, [])[0]

    def get_with_markers(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return the row of each key and the marker of each name, in order, as of one moment."""
        return self._database.read(list(keys), names)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _connected(self) -> None:
        for work in self._work:
            work()


class SqliteReader:
    """See ``OnlineReader``: what is asked is read in a thread, one after the other."""

    def __init__(self, url: str, timeout_s: float, on_connect: OnConnect | None) -> None:
        self._database = Database(url, timeout_s)
        self._on_connect = on_connect
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def start_read(self, keys: Sequence[bytes], names: Sequence[str], done: ReadCallback) -> None:
        """Have ``done`` called with what ``get_with_markers`` returns or raises."""
        task = asyncio.get_running_loop().create_task(self._answer(list(keys), list(names), done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def busy_poll(self) -> None:
        """Do nothing: a thread cannot be waited for any sooner."""

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, in order."""
        return (await self.get_with_markers(keys, ()))[0]

    async def get_with_markers(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return the row of each key and the marker of each name, in order, as of one moment."""
        reply: asyncio.Future[RowsAndMarkers] = asyncio.get_running_loop().create_future()
        self.start_read(keys, names, partial(settle, reply))
        return await reply

    async def mark_in_use(self, keys: Sequence[bytes], seconds: int) -> None:
        """Leave a sign under each key that stands for so long."""
        await self._opened()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._hold, list(keys), seconds)

    async def close(self) -> None:
        """Answer what was asked, and close the file."""
        await asyncio.gather(*self._tasks)
        self._thread.submit(self._database.close)
        await asyncio.to_thread(self._thread.shutdown)

    async def _answer(self, keys: Sequence[bytes], names: Sequence[str], done: ReadCallback) -> None:
        try:
            await self._opened()
            loop = asyncio.get_running_loop()
            answer: RowsAndMarkers | StoreError = await loop.run_in_executor(
                self._thread, self._database.read, keys, names
            )
        except StoreError as error:
            answer = error
        done(answer)

    async def _opened(self) -> None:
        """Open the file, if it is not, and tell of it before anything is read."""
        async with self._opening:
            if self._database.is_open:
                return
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._database.open)
            try:
                if self._on_connect is not None:
                    await self._on_connect()
            except SkewlessError:
                await loop.run_in_executor(self._thread, self._database.close)
                raise

    def _hold(self, keys: Sequence[bytes], seconds: int) -> None:
        with self._database.transaction() as connection:
            connection.executemany(_HOLD, [(key, b"1", now_us() + seconds * 1_000_000) for key in keys])
