"""What the fast lane reads of a request, and where it stops, on a real socket."""

from __future__ import annotations

import asyncio
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
import uvloop

from skewless.serving.http.hot_protocol import make_protocol
from skewless.serving.http.hot_routes import Exchange, HotRoutes
from skewless.serving.http.wire_limits import WireLimits
from tests.worlds.waiting import until

LIMITS = WireLimits(body_bytes=1_000, header_bytes=2_000, longer_bodies=(("/long", 5_000),))
HOT, COLD = b"/hot", b"/cold"


async def _application(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"cold"})


def _run(server: uvicorn.Server, listener: socket.socket, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(server.serve(sockets=[listener]))


def _hot(exchange: Exchange) -> None:
    exchange.reply(200, b"hot!")


@pytest.fixture(scope="module", params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    lane = make_protocol(HotRoutes({"/hot": _hot}), LIMITS)
    server = uvicorn.Server(uvicorn.Config(_application, http=lane, log_config=None, lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: _run(server, listener, request.param))
    thread.start()
    until(lambda: server.started)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(20)
    listener.close()


def told(port: int, *parts: bytes) -> bytes:
    """Send some parts, each when the one before has left; return all that comes until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        said = b""
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.002)
            while data := connection.recv(65_536):
                said += data
        except (ConnectionResetError, BrokenPipeError):
            pass  # what was still on its way when it hung up
        return said


def request(path: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    lines = (b"POST " + path + b" HTTP/1.1", b"host: x", b"connection: close", *headers)
    return b"\r\n".join((*lines, b"content-length: %d" % len(body), b"", body))


@pytest.mark.parametrize("path", [HOT, COLD])
def test_what_is_within_the_limits_is_answered(port: int, path: bytes) -> None:
    long = request(path, b"x-long: " + b"a" * 1_700, body=b"b" * 1_000)
    assert told(port, long).endswith(path[1:].replace(b"hot", b"hot!"))
    pieces = [long[i : i + 100] for i in range(0, len(long), 100)]
    assert told(port, *pieces).endswith(path[1:].replace(b"hot", b"hot!"))


def test_many_requests_of_one_connection_are_counted_one_by_one(port: int) -> None:
    one = request(HOT, b"x-long: " + b"a" * 1_000).replace(b"connection: close\r\n", b"")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for _ in range(10):
            for piece in (one[:500], one[500:900], one[900:]):
                connection.sendall(piece)
                time.sleep(0.001)
            assert connection.recv(65_536).endswith(b"hot!")


@pytest.mark.parametrize("path", [HOT, COLD])
@pytest.mark.parametrize(
    "headers",
    [
        (b"x-long: " + b"a" * 2_000,),
        tuple(b"x-%d: a" % number for number in range(10_000)),
        (b"a" * 2_000 + b": x",),
    ],
    ids=["a long one", "many", "a long name"],
)
def test_headers_that_are_too_long_are_refused(port: int, path: bytes, headers: tuple[bytes, ...]) -> None:
    said = told(port, request(path, *headers))
    assert said.startswith(b"HTTP/1.1 431 ") or said == b"", said
    assert said == b"" or b"more than 2000 bytes" in said


@pytest.mark.parametrize("start", [b"POST /", b"POST /hot HTTP/1.1\r\nx-long: ", b"POST /hot HTTP/1.1\r\nx"])
def test_a_line_without_an_end_is_cut_off(port: int, start: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(start)
        pieces = 0
        while not select.select([connection], [], [], 0.005)[0]:
            connection.sendall(b"a" * 500)
            pieces += 1
            assert pieces < 100
        said = connection.recv(65_536)
    assert said.startswith(b"HTTP/1.1 431 "), said
    assert b"connection: close" in said


def test_a_long_address_counts_as_well(port: int) -> None:
    assert told(port, request(HOT + b"?" + b"q" * 1_990)).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("path", [HOT, COLD])
def test_a_body_that_is_too_long_is_refused_before_it_is_read(port: int, path: bytes) -> None:
    head = request(path).replace(b"content-length: 0", b"content-length: 1001")
    assert told(port, head).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("path", [HOT, COLD])
def test_a_body_of_unknown_length_is_cut_off(port: int, path: bytes) -> None:
    head = request(path).replace(b"content-length: 0", b"transfer-encoding: chunked")
    said = told(port, head, *[b"64\r\n" + b"b" * 100 + b"\r\n"] * 11)
    assert said.startswith(b"HTTP/1.1 413 "), said


def test_some_paths_take_longer_bodies(port: int) -> None:
    assert told(port, request(b"/long/one", body=b"b" * 5_000)).endswith(b"cold")
    assert told(port, request(b"/long/one", body=b"b" * 5_001)).startswith(b"HTTP/1.1 413 ")


def ended(port: int, *parts: bytes) -> bytes:
    """Send parts, close the sending side, and return all that the server replies."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65_536):
            said += data
    return said


@pytest.mark.parametrize("path", [HOT, COLD])
def test_who_closes_the_sending_side_gets_each_reply(port: int, path: bytes) -> None:
    one = request(path, body=b"abc").replace(b"connection: close\r\n", b"")
    for n in (1, 2, 50):
        assert ended(port, *[one] * n).count(b"HTTP/1.1 200 ") == n
    cut = ended(port, one + one[:-1])
    assert [cut.count(b"HTTP/1.1 %d " % status) for status in (200, 400)] == [1, 1]
    assert ended(port) == b""


@pytest.mark.parametrize("path", [HOT, COLD])
def test_a_request_for_another_protocol_is_answered_with_its_body(port: int, path: bytes) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl on this machine")
    url = f"http://127.0.0.1:{port}{path.decode()}"
    command = [curl, "-sS", "--http2", "-d", "POST /x HTTP/1.1", "-w", " %{http_code} %{http_version}", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout == f"{'hot!' if path == HOT else 'cold'} 200 1.1"


@pytest.mark.parametrize("path", [HOT, COLD])
def test_trailers_that_do_not_end_stop_nobody(port: int, path: bytes) -> None:
    head = request(path).replace(b"content-length: 0", b"transfer-encoding: chunked")
    said = told(port, head, b"0\r\nx: ", *[b"a" * 1_000] * 200)
    assert said.startswith(b"HTTP/1.1 431 ") or said == b"", said
