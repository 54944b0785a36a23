"""Where the fast lane stops reading, and connections on which nothing happens."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from skewless.serving.http.http_server import close_timed_out
from tests.unit.serving.http.wire import LIMITS, Wire, on_a_wire, request

CHUNKED = "POST {} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
Steps = Callable[[Wire], Awaitable[None]]


def refusal(wire: Wire) -> tuple[int, str]:
    """Return status and problem of the only reply, after which the connection has ended."""
    (reply,) = wire.replies()
    assert wire.transport.closed
    assert reply.headers["connection"] == "close"
    error = json.loads(reply.body)["error"]
    return reply.status, error if isinstance(error, str) else error["problem"]


@pytest.mark.parametrize("path", ["/now", "/cold"])
def test_the_longest_body_passes_and_one_byte_more_does_not(path: str) -> None:
    whole = on_a_wire(lambda wire: wire.send(request(path, b"x" * 100)))
    assert whole.bodies()[0].endswith(b" 100")
    longer = on_a_wire(lambda wire: wire.send(request(path, b"x" * 101)))
    assert refusal(longer) == (413, "has a body of more than 100 bytes")
    assert longer.exchanges == []


@pytest.mark.parametrize("path", ["/now", "/cold"])
def test_chunks_are_added_up(path: str) -> None:
    chunk = b"32\r\n" + b"x" * 50 + b"\r\n"
    head = CHUNKED.format(path).encode()
    whole = on_a_wire(lambda wire: wire.send(head, chunk, chunk, b"0\r\n\r\n"))
    assert whole.bodies()[0].endswith(b" 100")
    longer = on_a_wire(lambda wire: wire.send(head, chunk, chunk, b"1\r\nx\r\n"))
    status, problem = refusal(longer)
    assert (status, problem) == (413, "has a body of more than 100 bytes")


def test_some_paths_take_longer_bodies() -> None:
    limits = replace(LIMITS, longer_bodies=(("/cold/", 200),))
    assert on_a_wire(lambda wire: wire.send(request("/cold/a", b"x" * 200)), limits).bodies() == [
        b"cold POST /cold/a 200"
    ]
    assert refusal(on_a_wire(lambda wire: wire.send(request("/cold/a", b"x" * 201)), limits))[0] == 413
    assert refusal(on_a_wire(lambda wire: wire.send(request("/cold", b"x" * 101)), limits))[0] == 413


@pytest.mark.parametrize(
    "headers", [(f"x: {'a' * 300}",), (f"{'a' * 300}: x",), tuple(f"x-{n}: y" for n in range(100))]
)
def test_headers_are_counted(headers: tuple[str, ...]) -> None:
    wire = on_a_wire(lambda wire: wire.send(request("/now", b"", *headers)))
    assert refusal(wire) == (431, "has more than 300 bytes in its first line and headers")
    assert wire.exchanges == []


def test_each_request_is_counted_for_itself() -> None:
    one = request("/now", b"x" * 90, f"x: {'a' * 200}")
    wire = on_a_wire(lambda wire: wire.send(*[one] * 5))
    assert wire.bodies() == [b"now 90"] * 5


def test_an_error_on_a_path_of_the_protocol_is_one_sentence() -> None:
    status, problem = refusal(on_a_wire(lambda wire: wire.send(request("/v2/models/m/infer", b"x" * 101))))
    assert status == 413
    assert problem.startswith("the request: has a body of more than 100 bytes. Fix: ")


async def silent(wire: Wire) -> None:
    """Send nothing at all."""


async def half_a_line(wire: Wire) -> None:
    await wire.send(b"POST /no")


async def half_a_head(wire: Wire) -> None:
    await wire.send(request("/now")[:-2])


async def half_a_body(wire: Wire) -> None:
    await wire.send(request("/now", b"abc")[:-1])


async def half_a_cold_body(wire: Wire) -> None:
    await wire.send(request("/cold", b"abc")[:-1])


async def half_a_second(wire: Wire) -> None:
    await wire.send(request("/now", b"abc"), request("/now", b"abc")[:-1])


async def answered(wire: Wire) -> None:
    await wire.send(request("/now", b"abc"))


async def answered_late(wire: Wire) -> None:
    await wire.send(request("/later", b"abc"))
    await wire.settle()


async def under_way(wire: Wire) -> None:
    await wire.send(request("/later", b"abc"))


async def second_under_way(wire: Wire) -> None:
    """Half of the second request has come when the reply to the first leaves."""
    second = request("/later", b"abc")
    await wire.send(request("/later", b"abc") + second[:20])
    await wire.settle()
    await wire.send(second[20:])


@pytest.mark.parametrize(
    ("steps", "limit"),
    [
        (half_a_line, 30.0),
        (half_a_head, 30.0),
        (half_a_body, 30.0),
        (half_a_cold_body, 30.0),
        (half_a_second, 30.0),
        (silent, 75.0),
        (answered, 75.0),
        (answered_late, 75.0),
    ],
)
async def test_how_long_a_client_may_take(steps: Steps, limit: float) -> None:
    wire = Wire()
    began = wire.now
    await steps(wire)
    ended = wire.now
    assert not wire.protocol.has_timed_out(began + limit - 0.001)
    assert wire.protocol.has_timed_out(ended + limit + 0.001)


@pytest.mark.parametrize("steps", [under_way, second_under_way])
async def test_a_request_under_way_is_never_hung_up_on(steps: Steps) -> None:
    wire = Wire()
    await steps(wire)
    assert not wire.protocol.has_timed_out(wire.now + 1_000)


async def test_a_reply_that_nobody_reads() -> None:
    wire = Wire()
    await answered(wire)
    now = wire.now
    wire.transport.unread = 7
    assert not wire.protocol.has_timed_out(now)
    assert not wire.protocol.has_timed_out(now + 29)
    wire.transport.unread = 0
    assert not wire.protocol.has_timed_out(now + 31)
    wire.transport.unread = 7
    assert not wire.protocol.has_timed_out(now + 32)
    assert not wire.protocol.has_timed_out(now + 61)
    assert wire.protocol.has_timed_out(now + 63)


async def test_only_connections_that_are_late_are_reaped() -> None:
    wire = Wire()
    other = Wire()
    await half_a_body(other)
    await answered(wire)
    assert close_timed_out({wire.protocol, other.protocol, object()}, wire.now + 40) == 1
    assert (wire.transport.closed, other.transport.aborted) == (False, True)
