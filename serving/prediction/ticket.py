"""Requests in flight."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from skewless.contract.errors import SkewlessError
from skewless.serving.prediction.routing import ScoringRequest
from skewless.serving.prediction.scored_batch import ScoredSlice

SliceCallback = Callable[[ScoredSlice | SkewlessError], None]


class Ticket:
    """A request that waits for its reply.

    Args:
        on_reply: called once, with the scores or an error.
        release: called before it, with the number of rows: their room is free, even if the reply fails.

    Attributes:
        is_open: no reply has been given.
        is_waiting: a reply is not in preparation either: no thread is scoring it, and no log write precedes its reply.
        n: number of rows.
    """

    __slots__ = ("_on_reply", "_release", "_timer", "is_open", "is_waiting", "n", "request", "started_at")

    def __init__(
        self, request: ScoringRequest, on_reply: SliceCallback, release: Callable[[int], None] | None = None
    ) -> None:
        self.request = request
        self.n = request.n
        self._release = release
        self.started_at = time.perf_counter()
        self.is_open = self.is_waiting = True
        self._on_reply = on_reply
        self._timer: asyncio.TimerHandle | None = None

    def set_timer(self, timer: asyncio.TimerHandle) -> None:
        """Attach the timer of the deadline, which the reply cancels."""
        self._timer = timer

    def settle(self, result: ScoredSlice | SkewlessError) -> bool:
        """Give the reply and return whether it was the first; later replies are dropped."""
        if not self.is_open:
            return False
        # Before the callback: whatever it does, no second reply can follow.
        self.is_open = self.is_waiting = False
        if self._timer is not None:
            self._timer.cancel()
        if self._release is not None:
            self._release(self.n)
        self._on_reply(result)
        return True
