"""Behind a gateway, nothing that it did not let pass is ever answered, and everybody gets his own reply."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import pytest

from tests.nightly.integration.serving.gateways import HOST, OriginServer, gateway, origin
from tests.unit.serving.http.raw_http import case

INNER = b"POST /cold/unload HTTP/1.1\r\nhost: x\r\nx-id: smuggled\r\ncontent-length: 0\r\n\r\n"
RANDOM = 150
_REPLY = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n(.*?)\r\n\r\n", re.DOTALL)


def chunks(data: bytes, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n0\r\n%b\r\n" % (len(data), extension, data, trailer)


def post(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"POST /hot HTTP/1.1", b"host: x", b"x-id: attack", *headers, b"", body])


LENGTH, CHUNKED = b"content-length: %d" % len(INNER), b"transfer-encoding: chunked"
UPGRADES = [
    (b"connection: upgrade", b"upgrade: h2c"),
    (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    (b"connection: keep-alive, upgrade", b"upgrade: websocket", b"sec-websocket-key: a", b"sec-websocket-version: 13"),
]
ATTACKS = [
    *(post(INNER, *headers, LENGTH) for headers in UPGRADES),
    *(post(chunks(INNER), *headers, CHUNKED) for headers in UPGRADES),
    post(b"0\r\n\r\n" + INNER, b"content-length: %d" % (5 + len(INNER)), CHUNKED),
    post(b"0\r\n\r\n" + INNER, CHUNKED, b"content-length: %d" % (5 + len(INNER))),
    *(
        post(b"0\r\n\r\n" + INNER, b"content-length: %d" % (5 + len(INNER)), odd)
        for odd in (
            b"transfer-encoding : chunked",
            b"transfer-encoding:\tchunked",
            b"transfer-encoding: xchunked",
            b"transfer-encoding: chunked, identity",
            b"transfer-encoding: identity, chunked",
            b"transfer-encoding:\x0bchunked",
            b"transfer_encoding: chunked",
            b"x: y\r\n transfer-encoding: chunked",
            b"x: y\ntransfer-encoding: chunked",
            b"x: y\rtransfer-encoding: chunked",
            b'transfer-encoding: "chunked"',
        )
    ),
    post(INNER, b"content-length: 0", LENGTH),
    post(INNER, LENGTH, b"content-length: 0"),
    post(INNER, b"content-length: 0, %d" % len(INNER)),
    post(INNER, b"content-length: +%d" % len(INNER)),
    post(INNER, b"content-length: 0x%x" % len(INNER)),
    post(INNER, LENGTH, b"expect: 100-continue"),
    post(INNER, LENGTH, b"expect: y 100-continue"),
    post(chunks(INNER), CHUNKED, b"expect: 100-continue"),
    post(chunks(INNER, trailer=b"content-length: 50\r\nhost: y\r\nx-id: trailer\r\n"), CHUNKED, b"trailer: x-id"),
    post(chunks(INNER, extension=b";a=b"), CHUNKED),
    post(chunks(INNER, extension=b";\n"), CHUNKED),
    post(b"2\nab\n0\n\n" + INNER, CHUNKED),
    post(b"2\r\nab" + b"0\r\n\r\n" + INNER, CHUNKED),
    post(b"10000000000000002\r\nab\r\n0\r\n\r\n" + INNER, CHUNKED),
    post(b"0\r\n\r\n", CHUNKED) + INNER,
    post(INNER, LENGTH).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    post(chunks(INNER), CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    post(INNER, LENGTH, b"host: y"),
    post(INNER, LENGTH, b"connection: content-length"),
    post(INNER, LENGTH).replace(b"POST", b"GET", 1),
    post(INNER, LENGTH).replace(b"POST", b"HEAD", 1),
    post(INNER, LENGTH).replace(b"POST /hot", b"POST http://x/hot", 1),
]


@dataclass(frozen=True)
class Gateway:
    """A gateway with our server behind it."""

    port: int
    origin: OriginServer


@pytest.fixture(scope="module", params=["nginx", "nginx unbuffered", "haproxy"])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with origin() as ours, gateway(request.param, tmp_path_factory.mktemp("gateway"), ours.port) as port:
        yield Gateway(port, ours)


def told(port: int, data: bytes) -> bytes:
    """Return all bytes received until the gateway closes the connection, a second after the last of them."""
    said = b""
    with socket.create_connection((HOST, port), timeout=20) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        while part := connection.recv(65_536):
            said += part
    return said


def check_others(front: Gateway, numbers: Iterator[int]) -> None:
    """All others get their own replies, on whatever connection to the server theirs comes."""
    for size in (0, 7):
        name = b"other-%d" % next(numbers)
        sent = b"POST /hot HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-id: %b\r\ncontent-length: %d\r\n\r\n%b"
        said = told(front.port, sent % (name, size, b"b" * size))
        match = _REPLY.match(said)
        assert match, said
        assert (match[1], said[match.end() :]) == (b"200", b"%b %d" % (name, size)), said


def attack(front: Gateway, data: bytes, numbers: Iterator[int]) -> bytes:
    said = told(front.port, data + b"GET /hot/last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    check_others(front, numbers)
    return said


def test_what_may_pass_passes_and_the_rest_does_not(front: Gateway) -> None:
    check_others(front, count())
    assert b" 403 " in told(front.port, INNER.replace(b"host: x", b"host: x\r\nconnection: close"))
    assert not [target for target in front.origin.targets if not target.startswith("/hot")]


def test_nothing_is_smuggled_past_a_gateway(front: Gateway) -> None:
    numbers = count()
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda data: attack(front, data, numbers), ATTACKS))
    assert {target for target in front.origin.targets if not target.startswith("/hot")} == set()
    assert not [reply for reply in said if b"smuggled" in reply]
    answered = [reply for reply in said[:6] if b"attack %d" % len(INNER) in reply]
    assert len(answered) >= 3  # a gateway may itself refuse an upgrade, but ours is answered with its whole body


def test_nothing_random_gets_past_a_gateway(front: Gateway) -> None:
    numbers = count(1_000_000)
    sent = [case(random.Random(seed)).whole for seed in range(RANDOM)]
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda data: attack(front, data, numbers), sent))
    assert {target for target in front.origin.targets if not target.startswith("/hot")} == set()
    assert sum(b" 200 " in reply for reply in said) > RANDOM / 5
