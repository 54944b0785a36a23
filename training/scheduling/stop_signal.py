"""What tells a scheduler to stop, from a signal handler."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from queue import Empty, SimpleQueue


class StopSignal:
    """Rung by SIGINT and SIGTERM.

    A handler may interrupt the main thread anywhere, even inside a lock; of the standard library's
    ways to wake it, only SimpleQueue may be used there.
    """

    def __init__(self) -> None:
        self.rung = False
        self.rung_again = False
        self._queue: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """Tell it to stop; the second time, at once."""
        self.rung_again = self.rung
        self.rung = True
        self._queue.put(None)

    def wait(self, seconds: float) -> None:
        """Wait, but not beyond the next ring."""
        with contextlib.suppress(Empty):
            self._queue.get(timeout=seconds)

    @contextlib.contextmanager
    def rung_by_signals(self) -> Iterator[None]:
        """Ring on SIGINT and SIGTERM inside the block."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, lambda *_: self.ring()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
