"""A circuit breaker: a store that fails is left alone for a while, and requests do not wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum


class State(IntEnum):
    """Of a breaker, as the metrics show it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Opens after failures in a row; after a pause one attempt decides whether it closes.

    Args:
        failures: in a row, until it opens.
        seconds: how long it stays open.
        on_trip: told when it opens.
        now: a monotonic clock, in seconds.

    >>> breaker = Breaker(failures=2, seconds=1.0, now=lambda: 0.0)
    >>> breaker.failed(), breaker.allows(), breaker.failed(), breaker.allows()
    (None, True, None, False)
    """

    def __init__(
        self,
        *,
        failures: int,
        seconds: float,
        on_trip: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = failures
        self._seconds = seconds
        self._on_trip = on_trip
        self._now = now
        self._failures = 0
        self._until = 0.0
        self.state = State.CLOSED

    def allows(self) -> bool:
        """Say whether to try; of those who ask after the pause, the first is the attempt."""
        if self.state is State.CLOSED:
            return True
        if self._now() < self._until:
            return False
        # The attempt may never report back; then the next one is let through a pause later.
        self.state, self._until = State.HALF_OPEN, self._now() + self._seconds
        return True

    def succeeded(self) -> None:
        """Note an answer."""
        self.state, self._failures = State.CLOSED, 0

    def failed(self) -> None:
        """Note that there was none."""
        self._failures += 1
        if self.state is State.HALF_OPEN or self._failures >= self._most:
            if self.state is not State.OPEN:
                self._on_trip()
            self.state, self._until = State.OPEN, self._now() + self._seconds
