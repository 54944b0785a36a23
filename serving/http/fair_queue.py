"""Queue of requests that wait while the server has no room, so that clients do not have to retry at once.

The next request is the one whose connection received its last reply the longest ago. So a client that sends few
requests is served although other clients send without a pause; those share the rest. Requests of clients that
disconnected are skipped.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from skewless.serving.http.hot_routes import JSON, Exchange, Handler, call_handler
from skewless.serving.http.reply import busy_body
from skewless.serving.http.wire_limits import BodyBudget
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.admission import Admission

_CHECK_S = 0.005
_MAX_STARTS = 64  # requests started in one turn of the event loop
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
    queued_at: float
    is_removed: bool = False


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
        self._heap: list[tuple[float, int, _WaitingRequest]] = []  # a heap
        self._arrivals: deque[_WaitingRequest] = deque()  # in order of arrival, as is the number in the heap
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
        request = _WaitingRequest(handler, exchange, origin, loop.time())
        self._n_arrivals += 1
        self._n_waiting += 1
        # Among equal times the number keeps the order of arrival, and heapq compares no requests.
        heapq.heappush(self._heap, (origin.last_reply_at, self._n_arrivals, request))
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
            if not self._heap or self._admission.is_full:
                return
            request = heapq.heappop(self._heap)[2]
            # Removal from the middle of a heap is slow: a rejected request stays in it until its turn.
            if request.is_removed:
                continue
            self._remove(request)
            if request.origin.disconnected:
                self._metrics.refused("abandoned").inc()
                continue
            request.exchange.waited_s = now - request.queued_at
            self._wait_seconds.observe(request.exchange.waited_s)
            call_handler(request.handler, request.exchange)
        self._schedule_start()

    def _reject_expired(self) -> None:
        """Reject requests that waited too long, and start others if the server has room."""
        loop = asyncio.get_running_loop()
        now, n_rejected = loop.time(), 0
        oldest_allowed, max_rejected = now - self._wait_s, (now - self._checked_at) * _REJECTIONS_PER_SECOND
        self._checked_at = now
        while self._arrivals and n_rejected < max_rejected:
            request = self._arrivals[0]
            if not request.is_removed:
                if request.queued_at > oldest_allowed:
                    break
                self._remove(request)
                self._reject(request.exchange)
                n_rejected += 1
            self._arrivals.popleft()
        # Room also comes without a release, when `Admission` raises its limit again.
        self._schedule_start()
        self._timer = loop.call_later(_CHECK_S, self._reject_expired) if self._arrivals else None

    def _remove(self, request: _WaitingRequest) -> None:
        request.is_removed = True
        self._n_waiting -= 1
        self.bodies.release(len(request.exchange.body))

    def _reject(self, exchange: Exchange) -> None:
        self._metrics.refused("overload").inc()
        self._metrics.requests("unknown", "", "busy").inc()
        exchange.reply(503, busy_body(exchange.path), _BUSY)
