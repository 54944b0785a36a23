"""Requests read off a connection: what frames them is checked and bounded, whatever of it the parser keeps to itself.

A parser calls back for a header, a part of a body, an end. Between two calls it may swallow any amount: a line that
does not end, extensions of a chunk, zeros of its size, empty lines between requests. These bytes are ``_unseen`` and
have a limit of their own.
"""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from skewless.contract.errors import BusyError, RequestError, SkewlessError
from skewless.serving.http.hot_routes import Header
from skewless.serving.http.wire_limits import BodyBudget, WireLimits

_PIECE = 16_384  # bytes for the parser at once; requests in it are all there before the first is answered
_FRAME = 16  # bytes around a chunk that are nobody's fault
_WATCHED = frozenset({b"content-length", b"expect", b"host", b"transfer-encoding"})
_FIX = "see docs/serving.md, Limits"


class RequestReader(HttpToolsProtocol):
    """One connection, as far as reading goes; lanes and replies are a subclass's.

    A request that is refused ends the connection: nothing that follows is read.
    """

    limits: WireLimits
    bodies: BodyBudget

    cycle: Any
    url = b""
    pipeline: Any  # requests that wait for their turn, the oldest at the right
    _head: list[Header] | None = None
    _rest: memoryview | None = None
    _size = 0
    _trailers = 0
    _unseen = 0
    _length = 0
    _most = 0
    _hosts = 0
    _held = 0
    _refusal: tuple[int, str] | None = None
    _upgrades = False
    _deaf = False
    _busy_since: float | None = None
    _idle_since: float | None = None
    _rested_since = 0.0

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - as in uvicorn
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.flow = _Flow(self)
        self._idle_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what has come of a request."""
        self._deaf, self._rest = True, None
        self._release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self._rest is None and len(data) <= _PIECE:
            self._read(data)
        else:
            self._rest = memoryview(data if self._rest is None else bytes(self._rest) + data)
            self.read_on()

    def read_on(self) -> None:
        """Read what has come and was not looked at, unless requests wait for their turn."""
        while self._rest and not self.pipeline:
            piece, rest = self._rest[:_PIECE], self._rest[_PIECE:]
            self._rest = rest or None
            self._read(bytes(piece))
        if self._rest:
            self.flow.pause_reading()

    def refuse(self, status: int, error: SkewlessError) -> None:
        """Answer the request that is being read, or the bytes that are none, in its turn; then hang up."""
        raise NotImplementedError

    def enter(self, *, keep_alive: bool) -> None:
        """Begin a request whose headers are complete."""
        raise NotImplementedError

    def take(self, body: bytes) -> None:
        """Take a part of the body."""
        raise NotImplementedError

    def leave(self) -> None:
        """End the request: all of it has come."""
        raise NotImplementedError

    def holds_body(self) -> bool:
        """Say whether the body of the request that is being read is kept, and not thrown away."""
        raise NotImplementedError

    def stop_reading(self) -> None:
        """Throw away whatever comes from here on."""
        self._deaf, self._rest, self._busy_since = True, None, None
        self._release()

    def on_message_begin(self) -> None:
        """Begin a request; what only the application needs is made when it is asked."""
        if self.cycle is not None and not self.cycle.keep_alive:
            self._deaf = True  # its sender was told, or said so, that the last request is the last
            raise ValueError("a request behind the last")
        self.url = b""
        self.headers = self._head = []
        self.expect_100_continue = False
        self._size = self._trailers = self._length = self._hosts = 0
        self._busy_since = now = self.loop.time()
        self._rested_since, self._idle_since = self._idle_since or now, None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, without the white space behind its value; a trailer is counted, and never one."""
        if self._head is None:
            self._trailers += len(name) + len(value)
            if self._trailers > self.limits.header_bytes:
                self._stop(431, f"its trailers have more than {self.limits.header_bytes} bytes")
            return
        name, value = name.lower(), value.rstrip(b" \t")
        self._size += len(name) + len(value)
        if name in _WATCHED:
            self._watch(name, value)
        self._head.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the head, and let the request begin."""
        if self.parser.should_upgrade():
            self._upgrades = True
            if self.parser.get_method() == b"CONNECT":
                self._stop(405, "has the method CONNECT, and this server is not a proxy")
            return
        self._unseen = 0
        if self._size + len(self.url) > self.limits.header_bytes:
            self._stop(*self._too_long())
        version = self.parser.get_http_version()
        if version != "1.1":
            self._check_old(version)
        elif self._hosts != 1:
            self._stop(400, f"has {self._hosts} headers `Host`, and one is needed")
        self._size = 0
        self.enter(keep_alive=version == "1.1" and self.parser.should_keep_alive())
        self._head = None

    def on_body(self, body: bytes) -> None:
        """Count a part of the body."""
        size = len(body)
        self._size += size
        if self._size > self._most:
            self._stop(*self._too_much())
        unseen = self._unseen - size - _FRAME
        self._unseen = max(0, unseen)
        self.take(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if self._upgrades:
            return  # it begins anew, without that
        self._busy_since = None
        self._unseen = 0
        if self._held:
            self._release()
        self.leave()

    def _read(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unseen += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                if not self._deaf:
                    status, problem = self._refusal or (400, _problem(error))
                    self.refuse(status, RequestError("the request", problem, fix=_FIX))
                return
        if self._busy_since is not None or self._unseen > self.limits.header_bytes:
            self._look_at_unfinished()

    def _without_upgrade(self) -> bytes:
        """Return the head that has just been read as one that asks for no other protocol, for a new parser.

        We speak no other, and the parser takes what follows for one: a body would be read as the next request.
        """
        self._upgrades = False
        line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join([line, *headers, b"", b""])

    def _watch(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            self._length = int(value)
        elif name == b"host":
            self._hosts += 1
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif value.lower() != b"chunked" or any(each == name for each, _ in self.headers):
            self._stop(501, "has a transfer encoding other than `chunked`")

    def _check_old(self, version: str) -> None:
        if version != "1.0":
            self._stop(505, f"is of HTTP/{version}, and only HTTP/1.1 and 1.0 are answered")
        if self._hosts > 1:
            self._stop(400, f"has {self._hosts} headers `Host`")
        if any(name == b"transfer-encoding" for name, _ in self.headers):
            self._stop(400, "has a transfer encoding, which HTTP/1.0 does not have")
        self.expect_100_continue = False

    def _look_at_unfinished(self) -> None:
        """Bound what has come of a request that is not complete, and what came between two."""
        most = self.limits.header_bytes
        if self._unseen > most:
            self.refuse(*self._unseen_error(most))
        elif self._head is None and self.holds_body():
            more = self._size - self._held
            if self.bodies.take(more):
                self._held = self._size
            else:
                problem = f"holds {self.bodies.most} bytes of bodies that are not complete"
                self.refuse(503, BusyError("the server", problem, fix="retry, or raise unfinished_body_bytes"))

    def _unseen_error(self, most: int) -> tuple[int, RequestError]:
        if self._busy_since is None:
            status, problem = 400, f"has more than {most} bytes of empty lines before it"
        elif self._head is not None:
            status, problem = self._too_long()
        else:
            status, problem = 431, f"has more than {most} bytes of chunk sizes, extensions and trailers"
        return status, RequestError("the request", problem, fix=_FIX)

    def _too_long(self) -> tuple[int, str]:
        return 431, f"its first line and headers have more than {self.limits.header_bytes} bytes"

    def _too_much(self) -> tuple[int, str]:
        return 413, f"its body has more than {self._most} bytes"

    def _stop(self, status: int, problem: str) -> None:
        """Stop the parser, whose error then becomes a refusal."""
        self._refusal = (status, problem)
        raise ValueError(problem)

    def _release(self) -> None:
        self.bodies.give(self._held)
        self._held = 0


def _problem(error: httptools.HttpParserError) -> str:
    """Return what the parser says, if it is not that one of our callbacks raised."""
    known = "" if isinstance(error, httptools.HttpParserCallbackError) else f": {str(error).rstrip('.').lower()}"
    return f"is not valid HTTP/1.1{known}"


class _Flow(FlowControl):
    """Reads nothing more while requests wait for their turn."""

    def __init__(self, reader: RequestReader) -> None:
        super().__init__(reader.transport)
        self._reader = reader

    def resume_reading(self) -> None:
        """Read on, if nothing waits."""
        if not self._reader.pipeline and self._reader._rest is None:  # noqa: SLF001 - the same connection
            super().resume_reading()
