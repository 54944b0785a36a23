"""Work that no caller waits for: counting and logging, while the next batch's read is under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

_log = structlog.get_logger()


class Afterwards:
    """Does things two turns of the event loop later, in order.

    In the turn after a reply the next batch gathers and is read; in the one after that the loop has nothing to do but
    wait for the store.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def put(self, work: Callable[[], None]) -> None:
        """Take something to do; call it from the event loop."""
        if not self._waiting:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self.run)
        self._waiting.append(work)

    def run(self) -> None:
        """Do all that waits, now."""
        while self._waiting:
            try:
                self._waiting.popleft()()
            except Exception as error:  # noqa: BLE001 - a defect, after the reply: nobody else would hear of it
                _log.error("after_reply_failed", exc_info=error)
