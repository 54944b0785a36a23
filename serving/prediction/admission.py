"""Admission control: limits the requests in flight, and lowers the limit while the event loop is overloaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from skewless.contract.errors import BusyError
from skewless.serving.metrics.metrics import Metrics

_CHECK_S = 0.005
_MAX_DELAY_S = 0.005  # a timer that fires later than this was delayed by work on the event loop
_MAX_CPU = 0.8  # of a core: a process that takes more may have more work than it can do, whatever its event loop says
_MIN_REQUESTS = 16
_WORK_S = 0.02  # an overloaded server admits the requests that it completes in this time
_AVERAGED_S = 0.1  # over which the rate of completed requests is averaged


def busy_error() -> BusyError:
    """Return the error of a request for which the server has no room."""
    return BusyError(
        "the server",
        "has reached its limit of requests in flight",
        fix="retry in a second, or run more workers",
    )


class Admission:
    """Count requests and rows in flight, and reject requests above the limits.

    While a turn of the event loop takes longer than 10 ms, or the process takes more than 0.8 of a core, the limit
    shrinks by a quarter per check, down to the requests that it completes in 20 ms, at least 16; afterwards it grows
    again. So under overload the admitted requests still receive fast replies. A server that only waits, for example
    for a slow store, is not overloaded and keeps its full limit.

    Args:
        requests: maximum number of requests in flight.
        rows: number of rows in flight from which no further request is admitted.

    Attributes:
        on_release: called after each reply.
    """

    on_release: Callable[[], None] | None = None

    def __init__(self, *, requests: int, rows: int, metrics: Metrics) -> None:
        self.in_flight = 0
        self._rows = 0
        self._max_requests = self._limit = requests
        self._max_rows = rows
        self._min_requests = min(requests, _MIN_REQUESTS)
        self._rejections = metrics.refused("overload")
        self._timer: asyncio.TimerHandle | None = None
        self._checked_at = self._cpu_s = self._rate = 0.0
        self._completed = 0

    @property
    def is_overloaded(self) -> bool:
        """Whether the event loop is overloaded, so that the limit is lowered."""
        return self._limit < self._max_requests

    @property
    def is_full(self) -> bool:
        """Whether a limit is reached; cheap enough to check before a request is parsed."""
        return self.in_flight >= self._limit or self._rows >= self._max_rows

    def admit(self, n: int) -> None:
        """Admit a request of n rows.

        Raises:
            BusyError: a limit is reached; the request was not admitted.
        """
        if self.is_full:
            self._rejections.inc()
            raise busy_error()
        self.in_flight += 1
        self._rows += n
        if self._timer is None:
            self._schedule()

    def release(self, n: int) -> None:
        """Release a request of n rows after its reply."""
        self.in_flight -= 1
        self._rows -= n
        self._completed += 1
        if self.on_release is not None:
            self.on_release()

    def _schedule(self) -> None:
        self._completed, self._checked_at, self._cpu_s = 0, time.perf_counter(), time.process_time()
        self._timer = asyncio.get_running_loop().call_later(_CHECK_S, self._check)

    def _check(self) -> None:
        elapsed = time.perf_counter() - self._checked_at
        self._rate += (self._completed / elapsed - self._rate) * min(elapsed / _AVERAGED_S, 1.0)
        if elapsed > _CHECK_S + _MAX_DELAY_S or time.process_time() - self._cpu_s > elapsed * _MAX_CPU:
            least = min(max(self._min_requests, int(self._rate * _WORK_S)), self._max_requests)
            self._limit = max(least, self._limit * 3 // 4)
        else:
            self._limit = min(self._max_requests, self._limit + self._limit // 8 + 1)
        self._timer = None
        # An idle server needs no timer; a lowered limit does, since only the timer raises it again.
        if self.in_flight or self._limit < self._max_requests:
            self._schedule()
