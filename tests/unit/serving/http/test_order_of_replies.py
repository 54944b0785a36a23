"""Each request is answered once, in order, whatever follows it on its connection."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.unit.serving.http.test_request_framing import chunked
from tests.unit.serving.http.wire import LIMITS, Wire, on_a_wire, request

BAD = {
    "garbage": (b"\x16\x03\x01\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "a long body": (request("/now", b"x" * 101), 413),
    "a long cold body": (request("/cold", b"x" * 101), 413),
    "long chunks": (chunked("/now", b"x" * 101), 413),
    "a broken chunk": (chunked("/now").removesuffix(b"0\r\n\r\n") + b"1\r\nabc\r\n", 400),
    "a broken cold chunk": (chunked("/cold").removesuffix(b"0\r\n\r\n") + b"1\r\nabc\r\n", 400),
    "a long header": (request("/now", b"", f"x: {'a' * 300}"), 431),
}
FIRST = ["/now", "/later", "/cold"]


def statuses(wire: Wire) -> list[int]:
    return [reply.status for reply in wire.replies()]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("together", [True, False], ids=["in one piece", "in two"])
async def test_a_refusal_waits_for_its_turn(first: str, bad: str, *, together: bool) -> None:
    refused, status = BAD[bad]
    parts = [request(first, b"abc"), refused]
    wire = Wire()
    await wire.send(*([b"".join(parts)] if together else parts))
    if first == "/later":
        assert wire.replies() == []
        await wire.settle()
    await wire.send(request("/now", b"never read"))
    assert statuses(wire) == [200, status]
    assert wire.transport.closed


@pytest.mark.parametrize("bad", BAD)
async def test_a_refusal_waits_for_all_before_it(bad: str) -> None:
    wire = Wire()
    await wire.send(b"".join([request("/later", b"a"), request("/cold"), request("/now"), BAD[bad][0]]))
    assert wire.replies() == []
    await wire.settle()
    assert statuses(wire) == [200, 200, 200, BAD[bad][1]]


@pytest.mark.parametrize("path", FIRST)
async def test_who_closes_his_side_gets_his_reply(path: str) -> None:
    wire = Wire()
    wire.protocol.data_received(request(path, b"abc"))
    await wire.end()
    if path == "/later":
        assert not wire.transport.closed
        await wire.settle()
    assert (statuses(wire), wire.transport.closed) == ([200], True)
    assert wire.replies()[0].headers.get("connection") == "close"


async def test_who_closes_his_side_gets_all_his_replies() -> None:
    wire = Wire()
    wire.protocol.data_received(b"".join([request("/later", b"abc"), request("/cold"), request("/now")]))
    await wire.end()
    await wire.settle()
    assert wire.bodies() == [b"later 3", b"cold POST /cold 0", b"now 0"]
    assert wire.transport.closed


@pytest.mark.parametrize("cut", [10, 35, -1])
@pytest.mark.parametrize("path", ["/now", "/cold"])
async def test_a_request_that_is_cut_off_is_told_so(path: str, cut: int) -> None:
    wire = Wire()
    await wire.send(request("/now") + request(path, b"abc")[:cut])
    await wire.end()
    first, second = wire.replies()
    assert (first.body, second.status, wire.transport.closed) == (b"now 0", 400, True)
    assert json.loads(second.body)["error"]["problem"] == "ends before it is complete"


async def test_who_closes_his_side_between_requests_is_left() -> None:
    wire = Wire()
    await wire.send(request("/now"), b"\r\n")
    await wire.end()
    assert (wire.bodies(), wire.transport.closed) == ([b"now 0"], True)


@pytest.mark.parametrize("path", FIRST)
async def test_nothing_behind_the_last_request_is_read(path: str) -> None:
    wire = Wire()
    await wire.send(request(path, b"abc", "connection: close") + request("/now", b"1") + b"\x16 junk")
    if path == "/later":
        await wire.settle()
    (reply,) = wire.replies()
    assert (reply.status, reply.headers["connection"], wire.transport.closed) == (200, "close", True)
    assert len(wire.exchanges) <= 1


@pytest.mark.parametrize("path", FIRST)
@pytest.mark.parametrize("piece", [b"\r\n", b"\r", b"\n"])
async def test_empty_lines_do_not_keep_a_connection(path: str, piece: bytes) -> None:
    wire = Wire()
    await wire.send(request(path, b"abc"))
    if path == "/later":
        await wire.settle()
    ended = wire.now
    await wire.send(piece)
    assert wire.protocol.has_timed_out(ended + 75.001)
    assert not wire.protocol.has_timed_out(ended + 74)


@pytest.mark.parametrize("path", ["/early", "/now"])
async def test_a_reply_before_the_body_has_come_leaves_the_connection_in_order(path: str) -> None:
    """Of the body nothing is kept, and the next request is the one behind it."""
    whole = request(path, b"x" * 100, "x-stranger: 1")
    wire = Wire()
    await wire.send(whole[:-60])
    assert len(wire.replies()) == 1
    assert wire.protocol.has_timed_out(wire.now + 31)
    await wire.send(whole[-60:-1], whole[-1:] + request("/now", b"1"))
    assert wire.protocol.has_timed_out(wire.now + 76)
    assert statuses(wire) == [200 if path == "/early" else 401, 200]
    assert wire.bodies()[1] == b"now 1"


@pytest.mark.parametrize("path", ["/early", "/now"])
def test_a_reply_before_the_body_is_the_only_one(path: str) -> None:
    head = chunked(path, headers=("x-stranger: 1",)).removesuffix(b"0\r\n\r\n")
    wire = on_a_wire(lambda wire: wire.send(head, b"2\r\nab\r\n", b"junk\r\n", request("/now")))
    assert len(wire.replies()) == 1
    assert wire.transport.closed


@pytest.mark.parametrize("path", ["/early", "/cold"])
async def test_who_asks_whether_to_go_on_is_told_so_before_any_reply(path: str) -> None:
    """A reply without that would leave open whether the body follows."""
    wire = Wire()
    await wire.send(request(path, b"abc", "expect: 100-continue")[:-3])
    assert wire.transport.written.pop(0) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(b"abc" + request("/now", b"1"))
    assert wire.bodies()[1] == b"now 1"


def test_who_asks_whether_to_go_on_and_may_not_is_left() -> None:
    whole = request("/now", b"abc", "expect: 100-continue", "x-stranger: 1")
    wire = on_a_wire(lambda wire: wire.send(whole[:-3], request("/now", b"1")))
    assert (statuses(wire), wire.transport.closed, wire.exchanges) == ([401], True, [])


async def test_nobody_is_told_to_go_on_before_it_is_his_turn() -> None:
    wire = Wire()
    await wire.send(request("/later", b"a") + request("/now", b"abc", "expect: 100-continue")[:-3])
    assert wire.transport.written == []
    await wire.settle()
    assert wire.transport.written.pop(1) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(b"abc")
    assert wire.bodies() == [b"later 1", b"now 3"]


async def test_requests_that_wait_are_few_however_many_come_at_once() -> None:
    limits = replace(LIMITS, header_bytes=65_536)
    one = request("/later", b"a")
    wire = Wire(limits)
    wire.protocol.data_received(one + request("/now") * 3_000)
    assert len(wire.protocol.pipeline) < 500
    assert not wire.transport.reading
    await wire.settle()
    while len(wire.exchanges) < 3_001:
        await wire.turn()
        assert len(wire.protocol.pipeline) < 500
    await wire.turn()
    assert len(wire.replies()) == 3_001
    assert wire.transport.reading


async def test_nothing_is_answered_while_replies_are_not_read() -> None:
    wire = Wire()
    wire.protocol.pause_writing()
    await wire.send(request("/now", b"a"), request("/now", b"ab"))
    assert (wire.replies(), wire.transport.reading) == ([], False)
    wire.protocol.resume_writing()
    await wire.turn()
    assert wire.transport.reading
    assert wire.bodies() == [b"now 1", b"now 2"]
