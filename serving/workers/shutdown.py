"""The way out of a serving process: asked once, it drains; asked twice, it leaves at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

from serving.workers.service_manager import notify


class Shutdown:
    """Tells those who wait that the process is to end."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._at_once = asyncio.Event()

    @property
    def asked(self) -> bool:
        """Whether the process is to end."""
        return self._begun.is_set()

    def ask(self) -> None:
        """Begin the shutdown; the second time, do not wait for anything any more."""
        if self.asked:
            self.end()
        self.begin()

    def begin(self) -> None:
        """Begin the shutdown."""
        self._begun.set()

    def end(self) -> None:
        """Do not wait for anything any more."""
        self._begun.set()
        self._at_once.set()

    async def begun(self) -> None:
        """Wait until the process is to end."""
        await self._begun.wait()

    async def at_once(self) -> None:
        """Wait until the process is to end without waiting for anything."""
        await self._at_once.wait()

    async def within(self, seconds: float) -> bool:
        """Wait some seconds, or until the shutdown begins; return whether it has."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._begun.wait(), seconds)
        return self.asked

    async def drained(self, seconds: float) -> None:
        """Wait until the shutdown has begun some seconds ago, or is to be at once."""
        await self.begun()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.at_once(), seconds)


@contextlib.contextmanager
def on_signals(shutdown: Shutdown) -> Iterator[None]:
    """Let SIGTERM and SIGINT ask for the shutdown."""
    loop = asyncio.get_running_loop()

    def ask() -> None:
        notify("STOPPING=1")
        shutdown.ask()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
