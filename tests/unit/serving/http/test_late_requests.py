"""A server that stops answers who has connected or begun a request, also if the rest comes after it stops listening."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from skewless.serving.http.hot_protocol import make_protocol
from skewless.serving.http.hot_routes import HotRoutes
from skewless.serving.http.http_server import Listener, run_http
from skewless.serving.shutdown import Shutdown
from tests.unit.serving.http.test_fast_lane_limits import (
    Steps,
    answered,
    half_a_body,
    half_a_head,
    half_a_line,
    half_a_second,
    silent,
)
from tests.unit.serving.http.wire import LIMITS, Wire, parsed, request
from tests.worlds.waiting import PATIENCE_S

ONE = request("/now", b"abc")
LATE_S = 0.4  # after the time in which connections settled before


@pytest.mark.parametrize(
    ("steps", "arrives"),
    [
        (silent, True),
        (half_a_line, True),
        (half_a_head, True),
        (half_a_body, True),
        (half_a_second, True),
        (answered, False),
    ],
)
async def test_a_request_arrives_for_a_second(steps: Steps, *, arrives: bool) -> None:
    wire = Wire()
    await steps(wire)
    now = wire.now
    assert wire.protocol.is_arriving(now) is arrives
    assert not wire.protocol.is_arriving(now + 1)


async def stopping(client: Callable[[socket.socket, Shutdown], Awaitable[bytes]]) -> tuple[bytes, float]:
    """Return what a connected client received of a server that it stops, and how long that took in seconds."""
    routes = HotRoutes({"/now": lambda exchange: exchange.reply(200, b"now %d" % len(exchange.body))})
    options = uvicorn.Config(_nothing, log_config=None, lifespan="off", http=make_protocol(routes, LIMITS))
    loop, ready, shutdown = asyncio.get_running_loop(), asyncio.Event(), Shutdown()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as link:
        server = asyncio.create_task(run_http([Listener(sock=listener, options=options)], shutdown, 0, ready.set))
        await ready.wait()
        link.settimeout(0)
        await loop.sock_connect(link, listener.getsockname())
        received = await client(link, shutdown)
        began = loop.time()
        shutdown.request()
        await asyncio.wait_for(server, PATIENCE_S)
        return received, loop.time() - began


async def _nothing(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
    raise AssertionError((scope, receive, send))


@pytest.mark.parametrize(("before", "sent"), [(0, 0), (0, 10), (0, len(ONE) - 1), (1, len(ONE) - 5)])
def test_what_comes_late_is_answered(before: int, sent: int) -> None:
    async def client(link: socket.socket, shutdown: Shutdown) -> bytes:
        loop, received = asyncio.get_running_loop(), b""
        for _ in range(before):
            await loop.sock_sendall(link, ONE)
            received += await loop.sock_recv(link, 1000)
        await loop.sock_sendall(link, ONE[:sent])
        await asyncio.sleep(0.05)
        shutdown.request()
        await asyncio.sleep(LATE_S)
        await loop.sock_sendall(link, ONE[sent:])
        while data := await loop.sock_recv(link, 1000):
            received += data
        return received

    received, _ = asyncio.run(stopping(client))
    assert [reply.body for reply in parsed(received)] == [b"now 3"] * (before + 1)


def test_a_client_that_never_sends_holds_a_server_for_a_second() -> None:
    async def client(link: socket.socket, shutdown: Shutdown) -> bytes:
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        shutdown.begun.set()
        assert await asyncio.get_running_loop().sock_recv(link, 1000) == b""
        return b"%f" % (asyncio.get_running_loop().time() - began)

    took, _ = asyncio.run(stopping(client))
    assert 0.8 < float(took) < PATIENCE_S
