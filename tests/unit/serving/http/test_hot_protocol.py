"""Requests on one connection: which lane they take, in which order replies leave, and when it ends."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from tests.unit.serving.http.wire import Wire, on_a_wire, request


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (request("/now", b"abc"), b"now 3"),
        (request("/now?a=b&c", b"abc"), b"now 3"),
        (request("/n%6fw", b"abc"), b"now 3"),
        (request("/named/m%C3%BC%2Fller", b"abc"), b"now 3"),
        (request("/now/", b"abc"), b"cold POST /now/ 3"),
        (request("/NOW", b"abc"), b"cold POST /NOW 3"),
        (request("/now", b"abc", method="PUT"), b"cold PUT /now 3"),
        (request("/now", method="GET"), b"cold GET /now 0"),
        (request("/now", b"", "connection: upgrade", "upgrade: websocket", method="GET"), b"cold GET /now 0"),
        (request("/", b"abc"), b"cold POST / 3"),
    ],
)
def test_the_lane_is_chosen_by_method_and_path(sent: bytes, said: bytes) -> None:
    assert on_a_wire(lambda wire: wire.send(sent)).bodies() == [said]


def test_what_a_handler_sees() -> None:
    wire = on_a_wire(lambda wire: wire.send(request("/named/m%C3%BCller?q=%20&r", b"{}", "X-Some: Thing", "x-some: 2")))
    (exchange,) = wire.exchanges
    assert (exchange.method, exchange.path, exchange.query) == ("POST", "/named/müller", b"q=%20&r")
    assert exchange.body == b"{}"
    assert (b"x-some", b"Thing") in exchange.headers
    assert [name for name, _ in exchange.headers] == [b"host", b"x-some", b"x-some", b"content-length"]


@pytest.mark.parametrize("size", [1, 2, 7, 50, 1_000])
def test_pieces_make_no_difference(size: int) -> None:
    whole = request("/now?x", b"abcdefgh", "x-a: b") + request("/n%6fw", b"abc") + request("/cold", b"12345")
    parts = [whole[i : i + size] for i in range(0, len(whole), size)]
    assert on_a_wire(lambda wire: wire.send(*parts)).bodies() == [b"now 8", b"now 3", b"cold POST /cold 5"]


@pytest.mark.parametrize("path", ["/now", "/cold"])
def test_a_body_in_chunks(path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    wire = on_a_wire(lambda wire: wire.send(head, b"3\r\nab", b"c\r\n", b"a\r\n0123456789\r\n0\r\n\r\n"))
    assert wire.bodies() == [b"now 13" if path == "/now" else b"cold POST /cold 13"]


async def test_a_client_that_asks_whether_to_go_on_is_told_so_once() -> None:
    head, body = request("/now", b"abc", "Expect: 100-Continue")[:-3], b"abc"
    wire = Wire()
    await wire.send(head)
    assert wire.transport.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    wire.transport.written.clear()
    await wire.send(body, request("/now", b"1"))
    assert wire.bodies() == [b"now 3", b"now 1"]


@pytest.mark.parametrize("first", ["/later", "/cold"])
@pytest.mark.parametrize("second", ["/now", "/later", "/cold"])
@pytest.mark.parametrize("together", [True, False], ids=["in one piece", "in two"])
async def test_replies_keep_the_order_of_requests_sent_before_any_reply(
    first: str, second: str, *, together: bool
) -> None:
    """Only one request at a time is under way: another waits."""
    parts = [request(first, b"abc"), request(second, b"1"), request("/cold", b"12")]
    wire = Wire()
    await wire.send(*([b"".join(parts)] if together else parts))
    if first == "/later":
        assert wire.replies() == []
        assert len(wire.exchanges) == 1
        await wire.settle()
    if wire.exchanges[1:] or (first == "/cold" and wire.exchanges and second == "/later"):
        await wire.settle(-1)
    said = wire.bodies()
    assert said[0] == (b"later 3" if first == "/later" else b"cold POST /cold 3")
    assert len(said) == 3
    assert said[1].endswith(b" 1")
    assert said[2] == b"cold POST /cold 2"


async def test_reading_pauses_while_requests_wait() -> None:
    wire = Wire()
    await wire.send(request("/later", b"abc") + request("/cold", b"1"))
    assert not wire.transport.reading
    await wire.settle()
    assert wire.transport.reading
    assert wire.bodies() == [b"later 3", b"cold POST /cold 1"]


async def test_a_connection_takes_many_requests_one_after_the_other() -> None:
    paths = ["/now", "/cold", "/named/a", "/now?q", "/cold", "/cold", "/now"] * 10
    wire = Wire()
    for n, path in enumerate(paths):
        await wire.send(request(path, b"x" * (n % 9)))
    assert [body.split()[-1] for body in wire.bodies()] == [b"%d" % (n % 9) for n in range(len(paths))]
    assert (wire.state.total_requests, wire.transport.closed) == (len(paths), False)
    assert {reply.headers.get("connection") for reply in wire.replies()} == {None}


@pytest.mark.parametrize("path", ["/now", "/later", "/cold"])
@pytest.mark.parametrize(
    ("headers", "version"), [(("connection: close",), "1.1"), ((), "1.0"), (("connection: keep-alive",), "1.0")]
)
async def test_a_client_that_wants_no_more_is_left(path: str, headers: tuple[str, ...], version: str) -> None:
    wire = Wire()
    await wire.send(request(path, b"abc", *headers, version=version))
    if path == "/later":
        assert not wire.transport.closed
        await wire.settle()
    (reply,) = wire.replies()
    assert (reply.headers["connection"], wire.transport.closed) == ("close", True)


async def test_replies_carry_the_servers_own_headers() -> None:
    wire = Wire()
    wire.state.default_headers = [(b"server", b"skewless"), (b"x-more", b"1")]
    await wire.send(request("/now"), request("/cold"))
    for reply in wire.replies():
        assert (reply.headers["server"], reply.headers["x-more"]) == ("skewless", "1")


def test_an_error_of_ours_is_answered_and_the_connection_stays() -> None:
    wire = on_a_wire(lambda wire: wire.send(request("/busy", b"abc"), request("/now")))
    refusal, after = wire.replies()
    assert (refusal.status, refusal.headers["retry-after"]) == (503, "1")
    assert json.loads(refusal.body)["error"]["value"] == 3
    assert after.body == b"now 0"


def test_a_defect_is_logged_and_answered() -> None:
    with capture_logs() as said:
        wire = on_a_wire(lambda wire: wire.send(request("/broken"), request("/now")))
    refusal, after = wire.replies()
    assert (refusal.status, json.loads(refusal.body)["error"]["kind"]) == (500, "error")
    assert after.body == b"now 0"
    assert [(item["event"], item["path"]) for item in said] == [("request_failed", "/broken")]


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00", b"POST\r\n\r\n", b"POST /now HTTP/7.1\r\n\r\n", b"\0" * 9]
)
def test_garbage_is_answered_once_and_hung_up_on(garbage: bytes) -> None:
    wire = on_a_wire(lambda wire: wire.send(request("/now"), garbage))
    assert [reply.status for reply in wire.replies()] == [200, 400]
    refusal = wire.replies()[1]
    assert (refusal.headers["connection"], refusal.headers["content-type"]) == ("close", "application/json")
    assert json.loads(refusal.body)["error"]["kind"] == "request"
    assert wire.transport.closed


async def test_a_client_that_left_gets_no_reply() -> None:
    wire = Wire()
    await wire.send(request("/later", b"abc"))
    wire.protocol.connection_lost(None)
    wire.transport.closed = False  # so that a write would be noticed
    await wire.settle()
    assert wire.transport.written == []
    assert wire.state.connections == set()


async def test_a_server_that_ends_answers_what_is_under_way_and_then_hangs_up() -> None:
    wire = Wire()
    await wire.send(request("/later", b"abc"))
    wire.protocol.shutdown()
    assert not wire.transport.closed
    await wire.settle()
    (reply,) = wire.replies()
    assert (reply.body, reply.headers["connection"], wire.transport.closed) == (b"later 3", "close", True)


@pytest.mark.parametrize("before", [[], [request("/now")], [request("/cold")]], ids=["nothing", "hot", "cold"])
async def test_a_server_that_ends_hangs_up_on_idle_connections(before: list[bytes]) -> None:
    wire = Wire()
    await wire.send(*before)
    wire.protocol.shutdown()
    assert (wire.transport.closed, len(wire.replies())) == (True, len(before))


async def test_paths_are_remembered_only_as_they_came_and_only_so_many() -> None:
    wire = Wire()
    for n in range(1_200):
        await wire.send(request(f"/named/{n}"))
    await wire.send(request("/now?once"), request("/named/1?twice"), request("/cold"))
    known = wire.protocol.handler_cache
    assert len(known) == 1_000
    assert {path for _, path in known.values()} <= {f"/named/{n}" for n in range(1_200)}
    assert len(wire.replies()) == 1_203


async def test_long_paths_are_answered_and_not_remembered() -> None:
    """Anybody may make up a path, before any key is asked."""
    wire = Wire()
    for n in range(100):
        await wire.send(request(f"/named/{n:0>252}"))
    assert len(wire.replies()) == 100
    assert sum(len(raw) + len(path) for raw, (_, path) in wire.protocol.handler_cache.items()) < 100 * 2 * 256 / 2


def test_connections_of_one_server_share_what_they_know_and_servers_do_not() -> None:
    wires = [on_a_wire(lambda wire: wire.send(request("/now"))) for _ in range(3)]
    assert all(one.protocol.handler_cache is not other.protocol.handler_cache for one, other in pairwise(wires))


async def test_a_reply_leaves_when_all_that_has_arrived_was_read() -> None:
    wire = Wire()
    for path in ("/busy", "/now"):
        before = len(wire.transport.written)
        wire.protocol.data_received(request(path))
        assert len(wire.transport.written) == before
        await wire.send()
        await asyncio.sleep(0)
        assert len(wire.transport.written) == before + 1
    assert [reply.status for reply in wire.replies()] == [503, 200]


async def test_a_client_that_leaves_is_left_by_all_its_requests(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    with caplog.at_level("ERROR"):
        wire.protocol.data_received(request("/cold", b"1") + request("/now", b"12") + request("/cold", b"123"))
        wire.transport.abort()
        wire.protocol.connection_lost(None)
        for _ in range(30):
            await asyncio.sleep(0)
        assert wire.replies() == []
    assert caplog.messages == []
