"""Circuit breaker of the online store: after failures in a row, requests stop waiting for the store for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum


class BreakerState(IntEnum):
    """State of a circuit breaker; the metric shows its number."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Open after failures in a row; after a pause, one trial call decides whether to close again.

    Args:
        failures: failures in a row that open the breaker.
        seconds: how long it stays open.
        on_trip: called when it opens.
        now: a monotonic clock, in seconds.

    >>> breaker = Breaker(failures=2, seconds=1.0, now=lambda: 0.0)
    >>> breaker = Breaker(failures=2, seconds=1.0, now=lambda: 0.0)
    >>> breaker.record_failure(), breaker.allow_call(), breaker.record_failure(), breaker.allow_call()
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
        self._max_failures = failures
        self._seconds = seconds
        self._on_trip = on_trip
        self._now = now
        self._failures = 0
        self._open_until = 0.0
        self.state = BreakerState.CLOSED

    def allow_call(self) -> bool:
        """Return whether the caller may try; after the pause, the first caller makes the trial call."""
        if self.state is BreakerState.CLOSED:
            return True
        if self._now() < self._open_until:
            return False
        # The trial call may never report its result. Another one is allowed after one more pause.
        self.state, self._open_until = BreakerState.HALF_OPEN, self._now() + self._seconds
        return True

    def record_success(self) -> None:
        """Close the breaker."""
        self.state, self._failures = BreakerState.CLOSED, 0

    def record_failure(self) -> None:
        """Count a failure; open the breaker if it was one too many."""
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN or self._failures >= self._max_failures:
            if self.state is not BreakerState.OPEN:
                self._on_trip()
            self.state, self._open_until = BreakerState.OPEN, self._now() + self._seconds
