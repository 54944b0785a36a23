"""A stop request that a signal handler can set."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from queue import Empty, SimpleQueue


class StopSignal:
    """A stop request, set by SIGINT and SIGTERM.

    A handler may interrupt the main thread anywhere, even while it holds a lock. Of the standard library's
    primitives that can wake the thread, only SimpleQueue is reentrant.
    """

    def __init__(self) -> None:
        self.is_set = False
        self.is_urgent = False
        self._queue: SimpleQueue[None] = SimpleQueue()

    def request_stop(self) -> None:
        """Request a stop; the second request is urgent."""
        self.is_urgent = self.is_set
        self.is_set = True
        self._queue.put(None)

    def wait(self, seconds: float) -> None:
        """Wait for some seconds, or until the next stop request."""
        with contextlib.suppress(Empty):
            self._queue.get(timeout=seconds)

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM as stop requests inside the block."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        handlers = {number: signal.signal(number, lambda *_: self.request_stop()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
