"""Queue of requests that wait while the server has no room, so that clients do not have to retry at once.

Callers take turns, and of a caller's requests the next is the one whose connection received its last reply the longest
ago. So a client that sends few requests is served although others send without a pause; those share the rest. Where
that leaves requests of a caller waiting all the time, new ones start first. Requests of clients that disconnected are
skipped.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from skewless.serving.http.hot_routes import JSON, Exchange, Handler, call_handler
from skewless.serving.http.reply import busy_body
from skewless.serving.http.wire_limits import BodyBudget
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.admission import Admission

_CHECK_S = 0.005
_MAX_STARTS = 64  # requests started in one turn of the event loop
_FRESH, _STALE = 0.2, 0.5  # of the longest wait, while a line is standing
_REJECTIONS_PER_SECOND = 6_400  # bounds the time for rejections to a tenth, however many requests arrive
_BUSY = (*JSON, (b"retry-after", b"1"))


class Origin(Protocol):
    """The connection or call that a request came from.

    Attributes:
        last_reply_at: time of the last reply on the connection, on the event loop's clock.
        disconnected: whether nobody receives the reply any more.
    """

    last_reply_at: float
    disconnected: bool


@dataclass(slots=True, eq=False)
class _WaitingRequest:
    handler: Handler
    exchange: Exchange
    origin: Origin
    line: _Line
    queued_at: float
    is_removed: bool = False


@dataclass(slots=True, eq=False)
class _Line:
    """The waiting requests of one caller.

    Attributes:
        caller: kind and name.
        since: when its first request came; the line was not empty from then on.
        n: number of requests.
        fresh: a heap; the request whose connection received its last reply the longest ago is first.
        stale: requests that did not start while they were fresh, in this order.
    """

    caller: tuple[str, str]
    since: float
    n: int = 0
    fresh: list[tuple[float, int, _WaitingRequest]] = field(default_factory=list)
    stale: list[_WaitingRequest] = field(default_factory=list)

    def pop(self, oldest_fresh: float) -> _WaitingRequest | None:
        """Return the next request: the first fresh one, or else the latest; None: the line is empty."""
        while self.fresh:
            request = heapq.heappop(self.fresh)[2]
            # Removal from the middle of a heap is slow: a rejected request stays in it until its turn.
            if request.is_removed:
                continue
            if request.queued_at >= oldest_fresh:
                return request
            self.stale.append(request)
        while self.stale:
            if not (request := self.stale.pop()).is_removed:
                return request
        return None


class FairQueue:
    """Starts requests, at once or when the server has room; rejects requests that waited too long.

    Belongs to one event loop.

    Args:
        bodies: counts the bodies of waiting requests, too.
        wait_s: longest wait, seconds; 0: requests never wait.
    """

    def __init__(self, admission: Admission, bodies: BodyBudget, *, wait_s: float, metrics: Metrics) -> None:
        self._admission = admission
        admission.on_release = self._schedule_start
        self.bodies = bodies
        self._wait_s = wait_s
        self._metrics = metrics
        metrics.waiting.watch(lambda: self._n_waiting)
        self._wait_seconds = metrics.stage("wait")
        self._lines: dict[tuple[str, str], _Line] = {}
        self._turns: list[tuple[int, int, _Line]] = []  # a heap of the lines: the smallest turn is next
        self._turn = 0  # of the last request that started
        self._arrivals: deque[_WaitingRequest] = deque()  # in order of arrival, as are the numbers in the heaps
        self._overdue: deque[Exchange] = deque()  # will be rejected
        self._n_arrivals = self._n_waiting = 0
        self._is_scheduled = False
        self._checked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, handler: Handler, exchange: Exchange, origin: Origin) -> None:
        """Start a request, at once if the server has room and no request waits."""
        # A new request must not overtake the waiting ones.
        if self._n_waiting or self._admission.is_full:
            self._enqueue(handler, exchange, origin)
        else:
            call_handler(handler, exchange)

    def _enqueue(self, handler: Handler, exchange: Exchange, origin: Origin) -> None:
        if not self._wait_s or not self.bodies.reserve(len(exchange.body)):
            self._reject(exchange)
            return
        loop = asyncio.get_running_loop()
        now, caller = loop.time(), (exchange.caller.kind, exchange.caller.name)
        self._n_arrivals += 1
        self._n_waiting += 1
        if (line := self._lines.get(caller)) is None:
            line = self._lines[caller] = _Line(caller, now)
            # Nobody saves turns: who comes back is next, but not more than once.
            heapq.heappush(self._turns, (self._turn, self._n_arrivals, line))
        line.n += 1
        request = _WaitingRequest(handler, exchange, origin, line, now)
        # Among equal times the number keeps the order of arrival, and heapq compares no requests.
        heapq.heappush(line.fresh, (origin.last_reply_at, self._n_arrivals, request))
        self._arrivals.append(request)
        if self._timer is None:
            self._checked_at = request.queued_at
            self._timer = loop.call_later(_CHECK_S, self._reject_expired)

    def _schedule_start(self) -> None:
        """Start waiting requests in the next turn of the loop, together for all room that becomes free in this turn."""
        if self._n_waiting and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_waiting)

    def _start_waiting(self) -> None:
        self._is_scheduled = False
        now = asyncio.get_running_loop().time()
        for _ in range(_MAX_STARTS):
            if not self._turns or self._admission.is_full:
                return
            turn, number, line = heapq.heappop(self._turns)
            # A line that has been standing does not become shorter by waiting: its old requests only delay the new.
            is_standing = now - line.since > self._wait_s
            request = line.pop(now - self._wait_s * _FRESH if is_standing else 0.0)
            if request is None:
                continue
            self._remove(request)
            if request.origin.disconnected:
                self._metrics.refused("abandoned").inc()
            elif is_standing and now - request.queued_at > self._wait_s * _STALE:
                self._overdue.append(request.exchange)
            else:
                self._turn, turn = turn, turn + 1
                request.exchange.waited_s = now - request.queued_at
                self._wait_seconds.observe(request.exchange.waited_s)
                call_handler(request.handler, request.exchange)
            if line.n:
                heapq.heappush(self._turns, (turn, number, line))
        self._schedule_start()

    def _reject_expired(self) -> None:
        """Start requests if the server has room, and reject others that waited too long."""
        # Room also comes without a release, when `Admission` raises its limit again.
        self._start_waiting()
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._arrivals and (self._arrivals[0].is_removed or self._arrivals[0].queued_at <= now - self._wait_s):
            request = self._arrivals.popleft()
            if not request.is_removed:
                self._remove(request)
                self._overdue.append(request.exchange)
        for _ in range(min(len(self._overdue), math.ceil((now - self._checked_at) * _REJECTIONS_PER_SECOND))):
            self._reject(self._overdue.popleft())
        self._checked_at = now
        is_idle = not self._arrivals and not self._overdue
        self._timer = None if is_idle else loop.call_later(_CHECK_S, self._reject_expired)

    def _remove(self, request: _WaitingRequest) -> None:
        request.is_removed = True
        self._n_waiting -= 1
        request.line.n -= 1
        if not request.line.n:
            del self._lines[request.line.caller]
        self.bodies.release(len(request.exchange.body))

    def _reject(self, exchange: Exchange) -> None:
        self._metrics.refused("overload").inc()
        self._metrics.requests("unknown", "", "busy").inc()
        exchange.reply(503, busy_body(exchange.path), _BUSY)
