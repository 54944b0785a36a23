"""A key that asks for less than its share loses nothing to one that asks for more than there is, over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, cast

import uvicorn
from uvicorn.server import ServerState

from skewless.serving.access.caller import Caller
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.http.fair_queue import FairQueue
from skewless.serving.http.hot_protocol import make_protocol
from skewless.serving.http.hot_routes import Exchange, Header, HotRoutes
from skewless.serving.http.wire_limits import BodyBudget, WireLimits
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.admission import Admission
from tests.unit.serving.http.wire import request

ROOM, WORK_S = 8, 0.02  # 400 requests a second
CONNECTIONS, ASKED, PAUSE_S = 200, 40, 0.02
KEYS = {name: Caller("API key", name, scopes=frozenset({"predict"})) for name in ("flood", "polite")}


class Flood(asyncio.Protocol):
    """A connection that asks again as soon as it has a reply, whatever that says."""

    statuses: ClassVar[Counter[bytes]] = Counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(request("/predict", b"{}", "x-key: flood"))

    def data_received(self, data: bytes) -> None:
        self.statuses[data[9:12]] += 1
        self._transport.write(request("/predict", b"{}", "x-key: flood"))


def admit(headers: Sequence[Header], _: PeerCertificate | None) -> Caller:
    return KEYS[dict(headers)[b"x-key"].decode()]


async def application(_scope: Any, _receive: Any, _send: Any) -> None:  # noqa: ANN401 - ASGI
    """Nothing is asked of it."""


async def test_a_key_below_its_share_loses_nothing() -> None:
    loop, metrics, bodies = asyncio.get_running_loop(), Metrics(), BodyBudget(1_000_000)
    admission = Admission(requests=ROOM, rows=1_000, metrics=metrics)
    queue = FairQueue(admission, bodies, wait_s=0.1, metrics=metrics)

    def handle(exchange: Exchange) -> None:
        admission.admit(1)
        loop.call_later(WORK_S, partial(answer, exchange))

    def answer(exchange: Exchange) -> None:
        admission.release(1)
        exchange.reply(200, b"{}")

    lane = make_protocol(HotRoutes({"/predict": handle}, admit=admit), WireLimits(body_bytes=100), bodies, queue)
    config, state = uvicorn.Config(application, log_config=None, ws="none"), ServerState()
    async with asyncio.timeout(60):
        server = await loop.create_server(lambda: lane(config=config, server_state=state, app_state={}), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        Flood.statuses.clear()
        flood = [(await loop.create_connection(Flood, *address))[0] for _ in range(CONNECTIONS)]
        statuses = Counter[bytes]()
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(ASKED):
            writer.write(request("/predict", b"{}", "x-key: polite"))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))
            statuses[head[9:12]] += 1
            await asyncio.sleep(PAUSE_S)
        for transport in (*flood, writer.transport):
            transport.close()
        server.close()
        while state.connections:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
    assert statuses == {b"200": ASKED}
    assert Flood.statuses[b"503"] > Flood.statuses[b"200"] > ASKED  # the server was full all the time
