"""Bodies are kept of those who may ask, and all that are unfinished have one limit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from skewless.serving.http.wire_limits import BodyBudget
from tests.unit.serving.http.test_request_framing import chunked
from tests.unit.serving.http.wire import LIMITS, Wire, on_a_wire, request

ROOM = replace(LIMITS, body_bytes=10_000)


async def test_who_is_not_let_in_is_told_so_when_the_headers_are_complete() -> None:
    bodies = BodyBudget(1_000)
    whole = request("/now", b"x" * 5_000, "x-stranger: 1")
    wire = Wire(ROOM, bodies)
    await wire.send(whole[:-4_990])
    assert [reply.status for reply in wire.replies()] == [401]
    await wire.send(whole[-4_990:-1])
    assert bodies.size == 0
    assert (wire.exchanges, len(wire.replies())) == ([], 1)


@pytest.mark.parametrize("before", ["/later", "/cold"])
async def test_that_waits_for_its_turn_as_well(before: str) -> None:
    wire = Wire(ROOM)
    await wire.send(request(before, b"a") + request("/now", b"x" * 50, "x-stranger: 1") + request("/now"))
    if before == "/later":
        assert wire.replies() == []
        await wire.settle()
    assert [reply.status for reply in wire.replies()] == [200, 401, 200]


@pytest.mark.parametrize("path", ["/now", "/cold"])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
async def test_all_bodies_under_way_have_one_limit(path: str, *, in_chunks: bool) -> None:
    bodies = BodyBudget(10_000)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\n\r\n".encode()
    piece = b"x" * 3_000
    if in_chunks:
        head, piece = chunked(path).removesuffix(b"0\r\n\r\n"), b"bb8\r\n" + piece + b"\r\n"
    wire = Wire(ROOM, bodies)
    others = [Wire(ROOM, bodies) for _ in range(3)]
    for other in others:
        await other.send(head, piece[:1_000], piece[1_000:])
    assert bodies.size == 9_000
    await wire.send(head, piece)
    (reply,) = wire.replies()
    assert (reply.status, reply.headers["retry-after"], wire.transport.closed) == (503, "1", True)
    assert "unfinished_body_bytes" in json.loads(reply.body)["error"]["fix"]
    assert bodies.size == 9_000
    await others[0].send(b"3e8\r\n" + b"y" * 1_000 + b"\r\n0\r\n\r\n" if in_chunks else b"y" * 1_000)
    assert others[0].replies()[0].body.endswith(b" 4000")
    assert bodies.size == 6_000
    others[1].protocol.connection_lost(None)
    assert bodies.size == 3_000
    await others[2].send(b"x" * 8_000)  # too long, or no chunk: nothing more is held of it
    assert bodies.size == 0


@pytest.mark.parametrize("path", ["/now", "/cold"])
def test_a_body_that_is_complete_is_not_unfinished(path: str) -> None:
    bodies = BodyBudget(10)
    wire = on_a_wire(lambda wire: wire.send(*[request(path, b"x" * 5_000)] * 3), ROOM, bodies)
    assert ([reply.status for reply in wire.replies()], bodies.size) == ([200] * 3, 0)
