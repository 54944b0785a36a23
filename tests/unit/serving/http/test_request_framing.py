"""Where a request ends, and what is no request: nothing of a body is ever read as the next one."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.unit.serving.http.wire import LIMITS, Wire, on_a_wire, request

ROOM = replace(LIMITS, body_bytes=100_000, header_bytes=2_000)
PATHS = ["/now", "/cold"]
UPGRADES = [
    ("connection: upgrade", "upgrade: h2c"),
    ("Upgrade: websocket", "Connection: keep-alive, Upgrade"),
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    ("connection: keep-alive", "connection: upgrade", "upgrade: TLS/1.0, HTTP/2.0"),
]
INNER = request("/named/smuggled", b"inner")


def told(path: str, n: int) -> bytes:
    """Return what is replied to a POST with so many bytes."""
    return b"now %d" % n if path == "/now" else b"cold POST %b %d" % (path.encode(), n)


def chunked(path: str, *parts: bytes, headers: tuple[str, ...] = (), trailers: tuple[str, ...] = ()) -> bytes:
    """Return a POST in chunks."""
    head = "\r\n".join([f"POST {path} HTTP/1.1", "host: x", *headers, "transfer-encoding: chunked", "", ""]).encode()
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return head + body + "\r\n".join(["0", *trailers, "", ""]).encode()


def cut(data: bytes, *places: int) -> list[bytes]:
    """Return the pieces of data between some places."""
    return [data[start:end] for start, end in pairwise([0, *places, len(data)])]


def refusal(wire: Wire) -> tuple[int, str]:
    """Return status and problem of the only reply, after which the connection has ended."""
    (reply,) = wire.replies()
    assert wire.transport.closed
    return reply.status, json.loads(reply.body)["error"]["problem"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("headers", UPGRADES)
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("pieces", ["one", "head and body", "many"])
def test_an_upgrade_is_not_asked_for(path: str, headers: tuple[str, ...], pieces: str, *, in_chunks: bool) -> None:
    first = chunked(path, INNER[:9], INNER[9:], headers=headers) if in_chunks else request(path, INNER, *headers)
    whole = first + request("/cold", b"ab") + request("/now", b"abc", *headers)
    places = {"one": [], "head and body": [first.index(b"\r\n\r\n") + 4], "many": range(1, len(whole), 5)}[pieces]
    wire = on_a_wire(lambda wire: wire.send(*cut(whole, *places)), ROOM)
    assert wire.bodies() == [told(path, len(INNER)), told("/cold", 2), told("/now", 3)]
    assert not wire.transport.closed
    assert all(b"inner" in exchange.body for exchange in wire.exchanges[:-1])


@pytest.mark.parametrize("headers", UPGRADES)
def test_an_upgrade_without_a_body_is_a_request_like_another(headers: tuple[str, ...]) -> None:
    whole = request("/cold", b"", *headers, method="GET") + request("/now", b"a")
    assert on_a_wire(lambda wire: wire.send(whole), ROOM).bodies() == [b"cold GET /cold 0", b"now 1"]


def test_an_upgrade_keeps_every_header_but_that() -> None:
    wire = on_a_wire(lambda wire: wire.send(request("/now?a=b", b"{}", *UPGRADES[2], "x-a: ä ,\t2")), ROOM)
    (exchange,) = wire.exchanges
    names = [name for name, _ in exchange.headers]
    assert names == [b"host", b"connection", b"http2-settings", b"x-a", b"content-length"]
    assert (exchange.query, exchange.headers[3][1]) == (b"a=b", "ä ,\t2".encode())


def test_a_tunnel_is_refused_with_all_behind_it() -> None:
    wire = on_a_wire(lambda wire: wire.send(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n" + INNER), ROOM)
    assert refusal(wire) == (405, "has the method CONNECT, but this server is not a proxy")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [20, 1_000, 16_000])
def test_a_line_that_does_not_end_is_cut_off_wherever_it_stands(path: str, size: int) -> None:
    head = chunked(path, headers=()).removesuffix(b"0\r\n\r\n")
    for start, piece in [
        (head + b"1\r\na\r\n0\r\nx: ", b"a"),
        (head + b"1\r\na\r\n0\r\nx", b"a"),
        (head + b"1;a=", b"b"),
        (head + b"1\r\na\r\n0;", b"b"),
        (head, b"0"),
        (head + b"1\r\na\r\n", b"0"),
        (head + b"0\r\n", b"x: y\r\n"),
    ]:
        wire = on_a_wire(lambda wire, s=start, p=piece: wire.send(s, *[p * size] * (4_000 // size + 2)), ROOM)  # type: ignore[misc]
        status, problem = refusal(wire)
        assert status == 431, (start, problem)
        assert "2000 bytes" in problem
        assert wire.exchanges == []


def test_empty_lines_between_requests_are_counted() -> None:
    wire = on_a_wire(lambda wire: wire.send(request("/now"), *[b"\r\n"] * 1_001), ROOM)
    first, second = wire.replies()
    assert (first.body, second.status) == (b"now 0", 400)
    assert json.loads(second.body)["error"]["problem"] == "follows more than 2000 bytes of empty lines"
    assert wire.transport.closed


def test_empty_lines_before_the_first_request_are_counted() -> None:
    wire = on_a_wire(lambda wire: wire.send(*[b"\r\n"] * 1_001), ROOM)
    assert refusal(wire) == (400, "follows more than 2000 bytes of empty lines")


def test_a_few_empty_lines_are_not() -> None:
    wire = on_a_wire(lambda wire: wire.send(*[request("/now") + b"\r\n" * 20] * 200), ROOM)
    assert wire.bodies() == [b"now 0"] * 200


@pytest.mark.parametrize("path", PATHS)
def test_overhead_of_each_chunk_adds_up(path: str) -> None:
    head = chunked(path, headers=()).removesuffix(b"0\r\n\r\n")
    chunk = b"1;" + b"e" * 500 + b"\r\na\r\n"
    assert refusal(on_a_wire(lambda wire: wire.send(head, *[chunk] * 10), ROOM))[0] == 431


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("n", [1, 7, 90_000])
def test_body_and_trailers_have_limits_of_their_own(path: str, n: int) -> None:
    body, trailers = b"b" * 90_000, (f"x-sum: {'a' * 1_800}", "x-end: 1")
    parts = [body[i : i + n] for i in range(0, 90_000, n)] if n > 1 else [body[:1]] * 5_000
    size = sum(map(len, parts))
    whole = chunked(path, *parts, trailers=trailers)
    wire = on_a_wire(lambda wire: wire.send(*cut(whole, *range(4_000, len(whole), 4_000))), ROOM)
    assert wire.bodies() == [told(path, size)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cuts", [(), (60, 90)])
def test_trailers_that_are_too_long_are_refused(path: str, cuts: tuple[int, ...]) -> None:
    whole = chunked(path, b"a", trailers=("x: " + "a" * 1_500, "y: " + "b" * 1_500))
    assert refusal(on_a_wire(lambda wire: wire.send(*cut(whole, *cuts)), ROOM))[0] == 431


def test_a_trailer_is_never_a_header() -> None:
    trailers = ("x-api-key: secret", "authorization: Bearer b", "expect: 100-continue", "host: y")
    wire = on_a_wire(lambda wire: wire.send(chunked("/now", b"ab", trailers=trailers), request("/now", b"1")), ROOM)
    assert wire.bodies() == [b"now 2", b"now 1"]
    assert [name for name, _ in wire.exchanges[0].headers] == [b"host", b"transfer-encoding"]


@pytest.mark.parametrize("space", [" ", "\t", " \t  "])
def test_white_space_around_a_value_is_none_of_it(space: str) -> None:
    wire = on_a_wire(lambda wire: wire.send(request("/now", b"a", f"x-api-key:{space}se cret{space}")), ROOM)
    assert (b"x-api-key", b"se cret") in wire.exchanges[0].headers


@pytest.mark.parametrize(
    ("head", "status", "problem"),
    [
        ("POST {} HTTP/1.1\r\nhost: x\r\nhost: x", 400, "has 2 `Host` headers instead of one"),
        ("POST {} HTTP/1.1\r\nHOST: x\r\nHost: y", 400, "has 2 `Host` headers instead of one"),
        ("POST {} HTTP/1.1", 400, "has 0 `Host` headers instead of one"),
        ("POST {} HTTP/1.0\r\nhost: x\r\nhost: x", 400, "has 2 `Host` headers instead of one"),
        ("POST {} HTTP/0.9\r\nhost: x", 505, "uses HTTP/0.9, but the server supports only HTTP/1.1 and 1.0"),
        ("POST {} HTTP/2.0\r\nhost: x", 505, "uses HTTP/2.0, but the server supports only HTTP/1.1 and 1.0"),
        ("GET {}", 505, "uses HTTP/0.9, but the server supports only HTTP/1.1 and 1.0"),
        ("POST {} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked", 501, "has a transfer encoding other than"),
        ("POST {} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip", 501, "has a transfer encoding other than"),
        ("POST {} HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked", 400, "has a transfer encoding, which HTTP/1.0"),
        ("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked", 400, "is not valid"),
        ("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 2", 400, "is not valid"),
        ("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: +2", 400, "is not valid"),
        ("POST {} HTTP/1.1\r\nhost: x\r\nx-a : b", 400, "is not valid"),
        ("POST {} HTTP/1.1\r\nhost: x\r\nx-a: b\r\n c", 400, "is not valid"),
        ("PRI * HTTP/2.0", 400, "is not valid"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_what_other_servers_may_read_otherwise_is_refused(path: str, head: str, status: int, problem: str) -> None:
    wire = on_a_wire(lambda wire: wire.send(head.format(path).encode() + b"\r\n\r\n" + INNER), ROOM)
    said = refusal(wire)
    assert (said[0], said[1][: len(problem)]) == (status, problem)
    assert wire.exchanges == []
