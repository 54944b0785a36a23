"""How much is taken on at once: less, while the event loop does not keep up with what was taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from skewless.contract.errors import BusyError
from skewless.serving.metrics.metrics import Metrics

_BEAT_S = 0.005
_LATE_S = 0.005  # a beat that comes so much too late was held up by work
_LEAST = 64


def busy() -> BusyError:
    """Return why a request is not begun while there is no room."""
    return BusyError(
        "the server",
        "has as many requests under way as it takes",
        fix="try again in a second, or run more workers",
    )


class Admission:
    """Counts what is under way, and refuses what would be more than there is room for.

    Room is given up quarter by quarter while the loop takes longer than 10 ms to come round, down to 64 requests, and
    is taken back as soon as it does not. So what is taken is answered soon although more comes than can be answered,
    while a loop that only waits, for a slow store for example, may have all its room filled.

    Args:
        requests: most requests under way.
        rows: rows under way from which on no further request is taken.

    Attributes:
        on_leave: called whenever a request was answered.
    """

    on_leave: Callable[[], None] | None = None

    def __init__(self, *, requests: int, rows: int, metrics: Metrics) -> None:
        self.under_way = 0
        self._rows = 0
        self._most = self._room = requests
        self._most_rows = rows
        self._least = min(requests, _LEAST)
        self._refused = metrics.refused("overload")
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    @property
    def late(self) -> bool:
        """Whether the event loop does not keep up with what was taken."""
        return self._room < self._most

    @property
    def full(self) -> bool:
        """Whether as much is under way as may be; worth asking before a request is read."""
        return self.under_way >= self._room or self._rows >= self._most_rows

    def enter(self, n: int) -> None:
        """Take a request of n rows.

        Raises:
            BusyError: as much is under way as may be; nothing was begun.
        """
        if self.full:
            self._refused.inc()
            raise busy()
        self.under_way += 1
        self._rows += n
        if self._timer is None:
            self._schedule()

    def leave(self, n: int) -> None:
        """Let go of a request of n rows that was answered."""
        self.under_way -= 1
        self._rows -= n
        if self.on_leave is not None:
            self.on_leave()

    def _schedule(self) -> None:
        self._due = time.perf_counter() + _BEAT_S
        self._timer = asyncio.get_running_loop().call_later(_BEAT_S, self._beat)

    def _beat(self) -> None:
        if time.perf_counter() - self._due > _LATE_S:
            self._room = max(self._least, self._room * 3 // 4)
        else:
            self._room = min(self._most, self._room + self._room // 8 + 1)
        self._timer = None
        if self.under_way or self._room < self._most:
            self._schedule()
