"""A connection of the fast lane without a socket: what is sent to it, what it says, and when it hangs up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from skewless.contract.errors import AccessError, BusyError
from skewless.serving.access.caller import ANYONE, Caller
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.http.fair_queue import FairQueue
from skewless.serving.http.hot_protocol import HotProtocol, make_protocol
from skewless.serving.http.hot_routes import Exchange, Handler, Header, HotRoutes
from skewless.serving.http.wire_limits import BodyBudget, WireLimits

LIMITS = WireLimits(body_bytes=100, header_bytes=300, request_seconds=30.0, keep_alive_seconds=75.0, linger_seconds=0.0)
_TURNS = 30
_HEAD = re.compile(rb"HTTP/1\.1 (\d+) [^\r]*\r\n(.*?\r\n)\r\n", re.DOTALL)


@dataclass
class WireTransport:
    """Remembers what is written until somebody hangs up."""

    written: list[bytes] = field(default_factory=list)
    closed: bool = False
    aborted: bool = False
    unread: int = 0
    reading: bool = True

    def write(self, data: bytes) -> None:
        assert not self.closed, data
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unread

    def get_extra_info(self, _: str, default: object = None) -> object:
        return default

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


@dataclass(frozen=True, kw_only=True)
class WireReply:
    """One reply, as a client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Wire:
    """One connection; hot are ``/now``, ``/later``, ``/busy``, ``/broken`` and all below ``/named/``.

    Hot routes do not let in who sends the header ``x-stranger``. ``/early`` is answered without its body.
    """

    limits: WireLimits = LIMITS
    unfinished: BodyBudget | None = None
    turns: FairQueue | None = None
    transport: WireTransport = field(default_factory=WireTransport)
    exchanges: list[Exchange] = field(default_factory=list)
    state: ServerState = field(default_factory=ServerState)
    protocol: HotProtocol = field(init=False)

    def __post_init__(self) -> None:
        routes: dict[str, Handler] = {
            "/now": self._now,
            "/later": self._later,
            "/busy": self._busy,
            "/broken": self._broken,
        }
        lane = make_protocol(HotRoutes(routes, self._named, _admit), self.limits, self.unfinished, self.turns)
        config = uvicorn.Config(_application, log_config=None, ws="none")
        self.protocol = lane(config=config, server_state=self.state, app_state={})
        self.protocol.connection_made(self.transport)

    @property
    def now(self) -> float:
        """The loop's clock."""
        return self.protocol.loop.time()

    async def send(self, *parts: bytes) -> None:
        """Hand over parts, and let whatever can happen happen."""
        for part in parts:
            self.protocol.data_received(part)
            await self.turn()

    async def end(self) -> None:
        """Close the client's side."""
        if not self.protocol.eof_received():
            self.transport.close()
        await self.turn()

    async def turn(self) -> None:
        """Let whatever can happen happen."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def settle(self, n: int = 0) -> None:
        """Answer the exchange that waits at a place with its number of bytes."""
        exchange = self.exchanges[n]
        exchange.reply(200, b"later %d" % len(exchange.body))
        await self.turn()

    def replies(self) -> list[WireReply]:
        """Return all replies until now; nothing may be left over."""
        return parsed(b"".join(self.transport.written))

    def bodies(self) -> list[bytes]:
        return [reply.body for reply in self.replies()]

    def _now(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.reply(200, b"now %d" % len(exchange.body))

    def _later(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def _busy(self, exchange: Exchange) -> None:
        raise BusyError("the server", "is busy", fix="wait", value=len(exchange.body))

    def _broken(self, exchange: Exchange) -> None:
        raise ZeroDivisionError(exchange.path)

    def _named(self, path: str) -> Handler | None:
        return self._now if path.startswith("/named/") else None


def parsed(data: bytes, methods: Iterable[str] = ()) -> list[WireReply]:
    """Return the replies in what was written; nothing may be left over.

    Args:
        methods: of the requests; a reply to HEAD has no body, whatever length it says.
    """
    found, known = [], iter(methods)
    while data:
        match = _HEAD.match(data)
        assert match, data
        lines = [line.split(b": ", 1) for line in match[2].splitlines()]
        headers = {name.decode().lower(): value.decode() for name, value in lines}
        assert len(headers) == len(lines), lines
        length = 0 if next(known, "") == "HEAD" else int(headers["content-length"])
        end = match.end() + length
        assert end <= len(data), data
        found.append(WireReply(status=int(match[1]), headers=headers, body=data[match.end() : end]))
        data = data[end:]
    return found


def on_a_wire(
    steps: Callable[[Wire], Awaitable[None]], limits: WireLimits = LIMITS, bodies: BodyBudget | None = None
) -> Wire:
    """Return a connection after some steps."""

    async def main() -> Wire:
        wire = Wire(limits, bodies)
        await steps(wire)
        return wire

    return asyncio.run(main())


def request(path: str, body: bytes = b"", *headers: str, method: str = "POST", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "host: x", *headers, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def _admit(headers: Sequence[Header], certificate: PeerCertificate | None) -> Caller:
    assert certificate is None
    if any(name == b"x-stranger" for name, _ in headers):
        raise AccessError("API key", "is missing", fix="send one")
    return ANYONE


async def _application(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
    size = 0
    while scope["path"] != "/early":
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = f"cold {scope['method']} {scope['path']} {size}".encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
