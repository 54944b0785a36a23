"""Random bytes that are nearly HTTP, what the fast lane makes of them, and what h11 does.

h11 is the strict reference: it shares no code with llhttp, which reads our requests. Where we answer a request, h11
must have read the same one: else a gateway might, too, and what it took for a body would be a request here.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import h11
import httptools
import uvicorn
from uvicorn.server import ServerState

from skewless.serving.http.hot_protocol import HotProtocol, make_protocol
from skewless.serving.http.hot_routes import Exchange, HotRoutes
from skewless.serving.http.wire_limits import WireLimits
from tests.unit.serving.http.wire import WireTransport, parsed

LIMITS = WireLimits(body_bytes=4_000, header_bytes=2_000, linger_seconds=0.0)
REFUSALS = {400, 405, 413, 431, 501, 505}
_TURNS = 12
_LONG_NUMBER = re.compile(rb"0[0-9A-Fa-f]{20}")  # of a chunk's size h11 reads 20 digits
_SPACES = re.compile(rb"\A([A-Z]+) +(\S+) +(?=HTTP/)")
_METHODS = ["POST", "POST", "POST", "GET", "PUT", "HEAD", "DELETE", "OPTIONS"]
_TARGETS = ["/hot", "/hot?a=b", "/cold", "/cold/x?y", "/early", "/"]
_TOKENS = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\0", b"\x0b", b":", b";", b",", b"0", b"0\r\n\r\n", b"\xff",
    b"=",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"chunked", b"identity",
    b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Host: y\r\n", b"HTTP/1.0", b"HTTP/1.1",
    b"HTTP/2.0", b"GET /cold HTTP/1.1\r\nhost: x\r\n\r\n", b"-", b"+", b"_", b"0x", b"\r\n ",
    b"Expect: 100-continue\r\n",
]  # fmt: skip
_OPTIONS = [
    "Connection: upgrade\r\nUpgrade: h2c", "Upgrade: websocket\r\nconnection: keep-alive, Upgrade", "x-a:",
    "x-b: \t b \t",
    "Connection: keep-alive", "Accept: */*", 'x-c: a, b;c="d"', "Upgrade: h2c", "connection: upgrade", "te: trailers",
    "x-long: " + "l" * 1_500, "authorization: Bearer sk_a_b", "trailer: x-sum", "cookie: a=b; c=\xff",
]  # fmt: skip
_BODIES = [
    b"", b"{}", b"x" * 700, b"\r\n\r\n", b"0\r\n\r\n", b"POST /hot HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\na",
    b"GET /cold HTTP/1.1\r\nhost: x\r\n\r\n", b"\0\xff\r\n",
]  # fmt: skip


@dataclass(frozen=True)
class SeenRequest:
    """A request as a server understood it; of its headers those about connections and framing are left out."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass(frozen=True)
class RawCase:
    """What is sent in pieces, and the requests that it holds, if it was left as it was made."""

    pieces: list[bytes]
    requests: list[SeenRequest] | None

    @property
    def whole(self) -> bytes:
        return b"".join(self.pieces)


@dataclass
class Outcome:
    """What a server understood, the status of each reply, and whether it hung up."""

    seen: list[SeenRequest] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    closed: bool = False


class HttpPath:
    """Connections of the fast lane, one after the other, on the loop that runs."""

    def __init__(self) -> None:
        self.seen: list[SeenRequest] = []
        lane = make_protocol(HotRoutes({"/hot": self._hot}), LIMITS)
        self._config = uvicorn.Config(cast("Any", self._cold), log_config=None, ws="none", interface="asgi3")
        self._lane: type[HotProtocol] = lane

    async def outcome(self, pieces: Iterable[bytes], turns: Iterable[int]) -> Outcome:
        """Return what comes of some pieces, with so many turns of the loop behind each."""
        self.seen = []
        transport = WireTransport()
        protocol = self._lane(config=self._config, server_state=ServerState(), app_state={})
        protocol.connection_made(transport)
        for piece, pause in zip(pieces, turns, strict=True):
            protocol.data_received(piece)
            await _turn(pause)
        for _ in range(100):
            before = len(transport.written)
            await _turn(_TURNS)
            if len(transport.written) == before:
                break
        said = parsed(b"".join(transport.written).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""), self.methods())
        protocol.connection_lost(None)
        await _turn(2)
        problems = [json.loads(reply.body)["error"]["problem"] for reply in said if reply.status >= 400 and reply.body]
        return Outcome(self.seen, [reply.status for reply in said], problems, transport.closed)

    def methods(self) -> list[str]:
        """Return the methods of all that was understood."""
        return [seen.method.decode() for seen in self.seen]

    def _hot(self, exchange: Exchange) -> None:
        target = exchange.path.encode() + (b"?" + exchange.query if exchange.query else b"")
        self.seen.append(SeenRequest(exchange.method.encode(), target, _plain(exchange.headers), exchange.body))
        exchange.reply(200, b"hot")

    async def _cold(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        self.seen.append(SeenRequest(scope["method"].encode(), target, _plain(scope["headers"]), body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"cold"})


def reference(data: bytes) -> list[SeenRequest]:
    """Return the requests that h11 reads, up to the first that is none, is not complete, or is the last.

    Left out is what RFC 9112 lets a server overlook and h11 refuses: empty lines before a request (2.2), and more than
    one space around its target (3).
    """
    seen = []
    rest: bytes | None = data
    while rest:
        request, rest = _first(_SPACES.sub(rb"\1 \2 ", rest.lstrip(b"\r\n")))
        seen += request
    return seen


def _first(data: bytes) -> tuple[list[SeenRequest], bytes | None]:
    """Return the first request, if there is one, and what follows; None: nothing that may be read."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    head: h11.Request | None = None
    body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return [], None
        if isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            seen = SeenRequest(bytes(head.method), _target(bytes(head.target)), _plain(head.headers), body)
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            return [seen], connection.trailing_data[0] if connection.our_state is h11.DONE else None
        else:
            return [], None


def case(rng: random.Random) -> RawCase:
    """Return something to send: requests in a row, in half of the cases with something wrong."""
    made = [_request(rng) for _ in range(rng.choice([1, 1, 2, 3]))]
    data = b"".join(text for text, _ in made)
    requests: list[SeenRequest] | None = []
    for _, seen in made:
        requests = None if requests is None or seen is None else [*requests, seen]
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 4])):
        data, requests = _mutated(rng, data), None
    return RawCase(_cut(rng, data), requests)


def check(case: RawCase, whole: Outcome, cut: Outcome) -> Counter[str]:
    """Compare what was made of a case at once, in pieces, and by h11; return what is to be counted."""
    if any(
        "more than" in problem for problem in cut.problems
    ):  # what comes at once is not always counted: what frames it is only seen in pieces
        assert cut.seen == whole.seen[: len(cut.seen)], case
    else:
        # Of several faults the pieces decide which is seen first.
        assert (whole.seen, len(whole.statuses), whole.closed) == (cut.seen, len(cut.statuses), cut.closed), case
    theirs = reference(case.whole)
    if _LONG_NUMBER.search(case.whole) and len(theirs) < len(whole.seen):
        return Counter(cases=1, long_numbers=1)
    assert whole.seen == theirs[: len(whole.seen)], (case, whole, theirs)
    answered = whole.statuses.count(200)
    assert answered == len(whole.seen), (case, whole)
    refused = whole.statuses[answered:]
    assert whole.statuses == [200] * answered + refused, (case, whole)
    assert len(refused) <= 1, (case, whole)
    assert set(refused) <= REFUSALS, (case, whole)
    assert whole.closed or not refused, (case, whole)
    if case.requests is not None:
        assert (whole.seen, refused) == (case.requests, []), (case, whole)
    stricter = len(theirs) > answered and bool(refused)
    unanswered = len(theirs) > answered and not refused
    assert not unanswered, (case, whole, theirs)
    counts = Counter(cases=1, answered=answered, refused=len(refused), refused_beside_h11=int(stricter))
    return counts + Counter(f"beside h11: {problem}" for problem in whole.problems if stricter)


def _request(rng: random.Random) -> tuple[bytes, SeenRequest | None]:
    """Return a request with what is to be understood of it; None: who knows."""
    method, target, body = rng.choice(_METHODS), rng.choice(_TARGETS), rng.choice(_BODIES)
    options = rng.sample(_OPTIONS, rng.choice([0, 0, 1, 2, 4]))
    version, host, sure = "1.1", ["host: x"], True
    if rng.random() < 0.1:
        version, sure = rng.choice(["1.0", "0.9", "2.0", "1.2", "11", "1.01"]), False
    if rng.random() < 0.1:
        host, sure = rng.choice([[], ["Host: x", "host: x"], ["host:"], ["hOST : x"]]), False
    if sum(len(option) for option in options) > 1_800:
        sure = False
    framing, sent = _framing(rng, body)
    sure = sure and framing is not None
    if framing is None:
        framing = rng.choice(["content-length: 5\r\ncontent-length: 5", "transfer-encoding: chunked, chunked", "x: y"])
    lines = [f"{method} {target} HTTP/{version}", *host, *options, framing]
    head = "\r\n".join([line for line in lines if line] + ["", ""]).encode("latin-1")
    if not sure:
        return head + sent, None
    headers = [_split(line) for part in lines[1:] for line in part.split("\r\n") if line]
    return head + sent, SeenRequest(method.encode(), target.encode(), _plain(headers), body)


def _split(line: str) -> tuple[bytes, bytes]:
    name, _, value = line.partition(":")
    return name.lower().encode("latin-1"), value.strip(" \t").encode("latin-1")


def _framing(rng: random.Random, body: bytes) -> tuple[str | None, bytes]:
    """Return the header that says where a body ends, with the bytes of the body; None: an odd one."""
    match rng.choice(["length", "length", "chunks", "chunks", "odd", "none"]):
        case "length":
            return f"content-length: {len(body)}", body
        case "chunks":
            return "Transfer-Encoding: chunked", _chunks(rng, body)
        case "none" if not body:
            return "", b""
    return None, rng.choice([body, _chunks(rng, body)])


def _chunks(rng: random.Random, body: bytes) -> bytes:
    sent, rest = b"", body
    while rest:
        n = rng.choice([1, 3, 50, len(rest)])
        size = b"%x" % len(rest[:n])
        extension = rng.choice([b"", b"", b"", b";a=b", b';a="b c"', b";x"])
        sent += b"%b%b\r\n%b\r\n" % (size.zfill(rng.choice([1, 1, 4])), extension, rest[:n])
        rest = rest[n:]
    trailers = rng.choice([b"", b"", b"x-sum: 1\r\n", b"x-api-key: k\r\nhost: y\r\n"])
    return sent + b"0\r\n" + trailers + b"\r\n"


def _mutated(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    to = min(len(data), at + rng.choice([0, 1, 1, 2, 8]))
    many = rng.choice([b"0", b"a", b" ", b"\r\n", b";", b"x: y\r\n"]) * rng.choice([10, 2_500])
    start, middle, end = data[:at], data[at:to], data[to:]
    changed = [
        start + rng.choice(_TOKENS) + middle + end,
        start + rng.choice(_TOKENS) + end,
        start + end,
        start + middle + middle + end,
        start + middle.swapcase() + end,
        start + rng.randbytes(1) + data[at + 1 :],
        start + many + middle + end,
        start if rng.random() < 0.2 else data,
    ]
    return rng.choice(changed)


def _cut(rng: random.Random, data: bytes) -> list[bytes]:
    places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 1, 2, 5, 20])))
    bounds = [0, *places, len(data)]
    return [data[start:end] for start, end in pairwise(bounds) if end > start]


def _plain(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    left_out = {b"upgrade", b"content-length", b"transfer-encoding"}
    return tuple((bytes(name), bytes(value)) for name, value in headers if name not in left_out)


def _target(target: bytes) -> bytes:
    """Return what we keep of a target: path and query."""
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return target
    return (url.path or b"") + (b"?" + url.query if url.query else b"")


async def _turn(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def fuzz(seeds: Iterable[int]) -> Counter[str]:
    """Check a case for each seed; return counts."""
    lane, counts = HttpPath(), Counter[str]()
    for seed in seeds:
        rng = random.Random(seed)
        made = case(rng)
        try:
            whole = await lane.outcome([made.whole], [_TURNS])
            cut = await lane.outcome(made.pieces, [rng.choice([0, 0, 1, _TURNS]) for _ in made.pieces])
            counts += check(made, whole, cut)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    return counts
