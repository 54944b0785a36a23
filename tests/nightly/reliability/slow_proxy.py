"""A TCP proxy on loopback that holds back what it passes on, as a distant or tired server would."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

_CHUNK = 1 << 16


class SlowProxy:
    """Passes bytes between its clients and a port; replies come later by ``delay_s``, which may change at any time."""

    def __init__(self, target: int) -> None:
        self.delay_s = 0.0
        self.port = 0
        self._target = target
        self._ready = threading.Event()
        self._stop: Callable[[], object] = self._ready.wait
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def url(self) -> str:
        """Its address, as one of Redis."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        """Hang up on everybody."""
        self._stop()
        self._thread.join(10)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        stopped = asyncio.Event()
        self._stop = partial(asyncio.get_running_loop().call_soon_threadsafe, stopped.set)
        self._ready.set()
        await stopped.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            with contextlib.closing(back):
                await asyncio.gather(_copy(reader, back), self._copy_late(there, writer))

    async def _copy_late(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Delay each piece by itself: the line gets longer, not narrower."""
        loop = asyncio.get_running_loop()
        last = 0.0
        while data := await source.read(_CHUNK):
            last = max(last, loop.time() + self.delay_s)
            loop.call_at(last, _write, target, data)
        target.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        target.write(data)
    target.close()


def _write(target: asyncio.StreamWriter, data: bytes) -> None:
    if not target.is_closing():
        target.write(data)


@contextmanager
def slow_proxy(target: int) -> Iterator[SlowProxy]:
    """Run a proxy for the length of a block."""
    proxy = SlowProxy(target)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
