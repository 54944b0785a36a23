"""Shutdown of a serving process: the first signal drains it, the second ends it at once."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import signal
from collections.abc import Iterator

from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.serving.server_config import notify

_CRASH = ": native code crashed, its stacks are on stderr"
_CAUSES = {
    **dict.fromkeys(("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT"), _CRASH),
    "SIGKILL": ": killed by a user, or by the kernel for lack of memory; the kernel's log says which",
}
_log = EventLogger()


class Shutdown:
    """Notifies waiting tasks that the process must end.

    Attributes:
        begun: set when the shutdown begins.
        forced: set when the shutdown must not wait any longer.
    """

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.forced = asyncio.Event()

    @property
    def is_requested(self) -> bool:
        """Whether the process must end."""
        return self.begun.is_set()

    def request(self) -> None:
        """Begin the shutdown; a second call ends all waiting."""
        if self.is_requested:
            self.force()
        self.begun.set()

    def force(self) -> None:
        """Begin the shutdown without draining."""
        self.begun.set()
        self.forced.set()

    async def wait(self, seconds: float) -> bool:
        """Wait some seconds, or until the shutdown begins; return whether it has begun."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.begun.wait(), seconds)
        return self.is_requested

    async def wait_drained(self, seconds: float) -> None:
        """Wait until the shutdown began some seconds ago, or must not wait any longer."""
        await self.begun.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.forced.wait(), seconds)


@contextlib.contextmanager
def on_signals(shutdown: Shutdown) -> Iterator[None]:
    """Begin the shutdown on SIGTERM, SIGINT and SIGHUP."""
    loop = asyncio.get_running_loop()

    def request(signal_number: signal.Signals) -> None:
        shutdown.request()  # first: stderr may be a pipe whose reader has ended, and a log line an error
        notify("STOPPING=1")
        _log.info("shutdown_requested", signal=signal_number.name)

    # A closing terminal would kill the process without a log entry. Under nohup, SIGHUP stays ignored.
    hangup_signals = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
    signals = (signal.SIGINT, signal.SIGTERM, *hangup_signals)
    for signal_number in signals:
        loop.add_signal_handler(signal_number, request, signal_number)
    try:
        yield
    finally:
        for signal_number in signals:
            loop.remove_signal_handler(signal_number)


def report_crashes() -> None:
    """Write the stacks of all threads to stderr when native code crashes (SIGSEGV, SIGABRT and the like)."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # stderr is not a file, or is closed
        faulthandler.enable()


def cause_of(code: int) -> str:
    """Return why a process ended, by its exit code; negative: the signal.

    >>> cause_of(-11), cause_of(-1), cause_of(1)
    ('SIGSEGV: native code crashed, its stacks are on stderr', 'SIGHUP', 'exit code 1')
    """
    if code > 0:
        return f"exit code {code}"
    if code == 0:
        return "exit code 0, without a shutdown"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}{_CAUSES.get(name, '')}"
