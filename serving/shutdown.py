"""The way out of a serving process: asked once, it drains; asked twice, it leaves at once."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import signal
from collections.abc import Iterator

import structlog

from skewless.serving.announcement import notify

_CRASH = ": native code crashed, its stacks are on stderr"
_CAUSES = {
    **dict.fromkeys(("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT"), _CRASH),
    "SIGKILL": ": somebody killed it, or the kernel for want of memory; the kernel's log says which",
}
_log = structlog.get_logger()


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
    """Let SIGTERM, SIGINT and SIGHUP ask for the shutdown."""
    loop = asyncio.get_running_loop()

    def ask(number: signal.Signals) -> None:
        _log.info("shutdown_asked", signal=number.name)
        notify("STOPPING=1")
        shutdown.ask()

    # A terminal that closes would else end the process without a word; nohup has it ignored.
    hung_up = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
    numbers = (signal.SIGINT, signal.SIGTERM, *hung_up)
    for number in numbers:
        loop.add_signal_handler(number, ask, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def report_crashes() -> None:
    """Have the stacks of all threads written to stderr when native code crashes (SIGSEGV, SIGABRT and the like)."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # stderr is no file, or closed
        faulthandler.enable()


def cause_of(code: int) -> str:
    """Return why a process ended, by its exit code; negative: the signal.

    >>> cause_of(-11), cause_of(-1), cause_of(1)
    ('SIGSEGV: native code crashed, its stacks are on stderr', 'SIGHUP', 'exit code 1')
    """
    if code > 0:
        return f"exit code {code}"
    if code == 0:
        return "exit code 0, though nobody asked it to end"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}{_CAUSES.get(name, '')}"
