"""Requests that wait for their turn while the server has no room, instead of being refused and sent again at once.

Whose connection got its last reply longest ago is next: a client that asks now and then is answered although others ask
again without a pause, and those share what is left. Who hung up meanwhile is passed over.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from typing import Protocol

from skewless.serving.http.hot_routes import JSON, Exchange, Handler, handled
from skewless.serving.http.reply import busy_body
from skewless.serving.http.wire_limits import BodyBudget
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.admission import Admission

_LOOK_S = 0.005
_AT_ONCE = 64  # requests begun in one turn of the loop
_REFUSALS_A_SECOND = 6_400  # they may take a tenth of the time, however many ask
_BUSY = (*JSON, (b"retry-after", b"1"))


class RequestOrigin(Protocol):
    """Where a request came from.

    Attributes:
        rested_since: when its connection got its last reply, in the loop's time.
        disconnected: whether nobody waits for the reply any more.
    """

    rested_since: float
    disconnected: bool


class _Waiting:
    __slots__ = ("asker", "exchange", "handler", "over", "since")

    def __init__(self, handler: Handler, exchange: Exchange, asker: RequestOrigin, since: float) -> None:
        self.handler = handler
        self.exchange = exchange
        self.asker = asker
        self.since = since
        self.over = False


class FairQueue:
    """Lets requests begin, now or when there is room; who has waited too long is refused. Belongs to one event loop.

    Args:
        bodies: counts what is held of those who wait, too.
        wait_s: longest wait; 0: nobody waits.
    """

    def __init__(self, admission: Admission, bodies: BodyBudget, *, wait_s: float, metrics: Metrics) -> None:
        self._admission = admission
        admission.on_release = self._freed
        self.bodies = bodies
        self._wait_s = wait_s
        self._metrics = metrics
        metrics.waiting.watch(lambda: self._count)
        self._waited = metrics.stage("wait")
        self._next: list[tuple[float, int, _Waiting]] = []  # a heap
        self._oldest: deque[_Waiting] = deque()  # in the order in which they came; so is the number in the heap
        self._came = self._count = 0
        self._called = False
        self._looked = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, handler: Handler, exchange: Exchange, asker: RequestOrigin) -> None:
        """Begin a request, now if there is room and nobody waits."""
        if self._count or self._admission.is_full:
            self._wait(handler, exchange, asker)
        else:
            handled(handler, exchange)

    def _wait(self, handler: Handler, exchange: Exchange, asker: RequestOrigin) -> None:
        if not self._wait_s or not self.bodies.take(len(exchange.body)):
            self._refuse(exchange)
            return
        loop = asyncio.get_running_loop()
        waiting = _Waiting(handler, exchange, asker, loop.time())
        self._came += 1
        self._count += 1
        heapq.heappush(self._next, (asker.rested_since, self._came, waiting))
        self._oldest.append(waiting)
        if self._timer is None:
            self._looked = waiting.since
            self._timer = loop.call_later(_LOOK_S, self._look)

    def _freed(self) -> None:
        """Use what has become free, together with whatever else becomes free in this turn of the loop."""
        if self._count and not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._called = False
        now = asyncio.get_running_loop().time()
        for _ in range(_AT_ONCE):
            if not self._next or self._admission.is_full:
                return
            waiting = heapq.heappop(self._next)[2]
            if waiting.over:
                continue
            self._end(waiting)
            if waiting.asker.disconnected:
                self._metrics.refused("abandoned").inc()
                continue
            waiting.exchange.waited = now - waiting.since
            self._waited.observe(waiting.exchange.waited)
            handled(waiting.handler, waiting.exchange)
        self._freed()

    def _look(self) -> None:
        """Refuse those who have waited too long, and begin others if there is room."""
        loop = asyncio.get_running_loop()
        now, refused = loop.time(), 0
        last, most = now - self._wait_s, (now - self._looked) * _REFUSALS_A_SECOND
        self._looked = now
        while self._oldest and refused < most:
            waiting = self._oldest[0]
            if not waiting.over:
                if waiting.since > last:
                    break
                self._end(waiting)
                self._refuse(waiting.exchange)
                refused += 1
            self._oldest.popleft()
        self._freed()
        self._timer = loop.call_later(_LOOK_S, self._look) if self._oldest else None

    def _end(self, waiting: _Waiting) -> None:
        waiting.over = True
        self._count -= 1
        self.bodies.give(len(waiting.exchange.body))

    def _refuse(self, exchange: Exchange) -> None:
        self._metrics.refused("overload").inc()
        self._metrics.requests("unknown", "", "busy").inc()
        exchange.reply(503, busy_body(exchange.path), _BUSY)
