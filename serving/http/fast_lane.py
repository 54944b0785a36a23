"""Hot routes answered inside uvicorn's own protocol: its parser, keep-alive, limits and TLS, without ASGI.

All other requests, and those that a client sends before it has read the reply to the last (pipelining), go to the
application as ever.
"""

from __future__ import annotations

import http
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.http.exchange import JSON, Exchange, Handler, Header
from serving.http.hot_routes import HotRoutes, handled
from serving.http.reply import error_json
from skewless.errors import RequestError

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LENGTH = b"content-length: "
_KNOWN, _KNOWN_BYTES = 1_000, 256  # hot paths remembered as they came, and the longest of them
_CLOSE = b"connection: close\r\n"


@dataclass(frozen=True, kw_only=True)
class WireLimits:
    """How much of a request is read.

    Args:
        body_bytes: longest body, but for ``longer``.
        header_bytes: the address of a request, and names and values of all its headers.
        request_seconds: from the first byte of a request to its last; and how long a reply may wait to be read.
        keep_alive_seconds: how long a connection may stay without a request.
        linger_seconds: how long the rest of a body that is too long is taken, so that its sender gets the refusal.
        longer: longest body below some paths.
    """

    body_bytes: int
    header_bytes: int = 65_536
    request_seconds: float = 30.0
    keep_alive_seconds: float = 75.0
    linger_seconds: float = 1.0
    longer: tuple[tuple[str, int], ...] = ()

    def most(self, path: str) -> int:
        """Return the longest body of a path."""
        return next((size for start, size in self.longer if path.startswith(start)), self.body_bytes)


class _Signal:
    """Stands where uvicorn wakes those who wait for more of a request: here nobody does."""

    def set(self) -> None:
        """Do nothing."""


class _HotCycle:
    """A hot request on its way through, with what uvicorn looks at in a request's cycle."""

    __slots__ = ("body", "disconnected", "handled", "handler", "keep_alive", "path", "query", "response_complete")

    message_event = _Signal()

    def __init__(self, handler: Handler, path: str, query: bytes, *, keep_alive: bool) -> None:
        self.handler = handler
        self.path = path
        self.query = query
        self.keep_alive = keep_alive
        self.body: list[bytes] = []
        self.handled = False
        self.response_complete = False
        self.disconnected = False


class _UsualHead:
    """The head of nearly all replies."""

    def __init__(self) -> None:
        self._default: Sequence[Header] = ()
        self._head = b""

    def after(self, default: Sequence[Header]) -> bytes:
        """Return it with the server's own headers, which are new ones each second, for the date."""
        if default is not self._default:
            self._default, self._head = default, _head(http.HTTPStatus.OK, (*default, *JSON))
        return self._head


def _head(status: int, headers: Iterable[Header]) -> bytes:
    """Return the first line of a reply, and its headers but for those about its length."""
    return STATUS_LINE[status] + b"".join([b"%b: %b\r\n" % header for header in headers])


class FastLane(HttpToolsProtocol):
    """One connection.

    Subclasses made by ``fast_lane`` say which routes and limits are meant.
    """

    routes: HotRoutes
    limits: WireLimits
    known: dict[bytes, tuple[Handler, str]]
    usual: _UsualHead

    cycle: Any
    _in_application: Any = None
    _head: list[Header] | None = None
    _head_size = 0
    _size = 0
    _length = 0
    _most = 0
    _refusal: tuple[int, str] | None = None
    _deaf = False
    _busy_since: float | None = None
    _idle_since: float | None = None
    _blocked_since: float | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - as in uvicorn
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that the application is at, too: uvicorn tells only the last that came."""
        self.pipeline.clear()
        if self._in_application is not None:
            self._in_application.disconnected = True
            self._in_application.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of a line that does not end are counted here, because the parser keeps them to itself."""
        if self._deaf:
            return
        head = self._head
        super().data_received(data)
        if head is not None and head is self._head and not self.transport.is_closing():
            self._head_size += len(data)
            if self._head_size > self.limits.header_bytes:
                self._refusal = self._too_long()
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin a request; what only the application needs is made when it is asked."""
        self.url = b""
        self.headers = self._head = []
        self.expect_100_continue = False
        self._head_size = self._size = self._length = 0
        self._busy_since, self._idle_since = self.loop.time(), None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        name = name.lower()
        self._size += len(name) + len(value)
        if self._size > self.limits.header_bytes:
            self._refuse(*self._too_long())
        if name == b"content-length" and value.isdigit():
            self._length = int(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Choose the lane."""
        self._head = None
        if self._size + len(self.url) > self.limits.header_bytes:
            self._refuse(*self._too_long())
        handler, path = self.known.get(self.url) or self._find()
        self._most = self.limits.most(path) if handler is None else self.limits.body_bytes
        if self._length > self._most:
            self._refuse(413, f"its body has more than {self._most} bytes")
        self._size = 0
        waits = self.cycle is not None and not self.cycle.response_complete
        if handler is None or waits or self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            self._enter_slow_lane()
            return
        keep_alive = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        self.cycle = _HotCycle(handler, path, self.url.partition(b"?")[2], keep_alive=keep_alive)
        if self.expect_100_continue:
            self.transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._size += len(body)
        if self._size > self._most:
            self._refuse(413, f"its body has more than {self._most} bytes")
        if type(self.cycle) is _HotCycle:
            self.cycle.body.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Let the handler answer."""
        self._busy_since = None
        cycle = self.cycle
        if type(cycle) is not _HotCycle:
            super().on_message_complete()
            return
        exchange = Exchange(
            method="POST",
            path=cycle.path,
            query=cycle.query,
            headers=self.headers,
            body=b"".join(cycle.body),
            send=partial(self._send, cycle),
        )
        handled(cycle.handler, exchange)
        cycle.handled = True

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, or too long a one, and hang up."""
        status, problem = self._refusal or (400, msg.rstrip(".").lower())
        error = RequestError("the request", problem, fix="see docs/serving.md, Limits")
        self._write(
            status,
            orjson.dumps(error_json(error, self.url.decode("latin-1"))),
            ((b"content-type", b"application/json"),),
            close=True,
        )
        if status == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            # The rest of the body is still coming: to hang up now would take the reply with it.
            self._deaf = True
            self.loop.call_later(self.limits.linger_seconds, self.transport.close)
        else:
            self.transport.close()

    def timed_out(self, now: float) -> bool:
        """Say whether a request takes too long to arrive, a reply to be read, or the next request to come."""
        blocked = self.transport.get_write_buffer_size() > 0
        self._blocked_since = (self._blocked_since or now) if blocked else None
        for since in (self._busy_since, self._blocked_since):
            if since is not None and now - since > self.limits.request_seconds:
                return True
        return self._idle_since is not None and now - self._idle_since > self.limits.keep_alive_seconds

    def _too_long(self) -> tuple[int, str]:
        return 431, f"its first line and headers have more than {self.limits.header_bytes} bytes"

    def _find(self) -> tuple[Handler | None, str]:
        """Return what handles the request's path, if it is a hot one, and the path itself."""
        raw = httptools.parse_url(self.url).path
        path = raw.decode("ascii")
        if "%" in path:
            path = urllib.parse.unquote(path)
        handler = self.routes.find(path)
        if handler is not None and raw == self.url and len(self.known) < _KNOWN and len(raw) <= _KNOWN_BYTES:
            self.known[raw] = handler, path
        return handler, path

    def _refuse(self, status: int, problem: str) -> None:
        """Stop the parser, whose error then becomes ``send_400_response``."""
        self._refusal = (status, problem)
        raise ValueError(problem)

    def _enter_slow_lane(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:  # noqa: ANN401 - as in uvicorn
        self._in_application = cycle
        super()._start_asgi_task(cycle, app)

    def _send(self, cycle: _HotCycle, status: int, body: bytes, headers: Sequence[Header]) -> None:
        if cycle.response_complete:
            return
        if not cycle.handled:
            # Who gets a reply asks again: a loop that answers while it still reads may read for seconds.
            self.loop.call_soon(self._send, cycle, status, body, headers)
            return
        cycle.response_complete = True
        if cycle.disconnected or self.transport.is_closing():
            return
        self._write(status, body, headers, close=not cycle.keep_alive)
        if not cycle.keep_alive:
            self.transport.close()
        elif self.pipeline:
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        if self._busy_since is None:
            self._idle_since = self.loop.time()

    def _write(self, status: int, body: bytes, headers: Sequence[Header], *, close: bool) -> None:
        default = self.server_state.default_headers
        usual = headers is JSON and status == http.HTTPStatus.OK
        head = self.usual.after(default) if usual else _head(status, (*default, *headers))
        self.transport.write(b"%b%b%b%d\r\n\r\n%b" % (head, _CLOSE if close else b"", _LENGTH, len(body), body))


def fast_lane(routes: HotRoutes, limits: WireLimits) -> type[FastLane]:
    """Return the protocol class for uvicorn's ``http`` option."""
    return type("FastLane", (FastLane,), {"routes": routes, "limits": limits, "known": {}, "usual": _UsualHead()})


def reap(connections: set[Any], now: float) -> int:
    """Hang up on connections that have timed out; return how many those were."""
    late = [each for each in connections if isinstance(each, FastLane) and each.timed_out(now)]
    for connection in late:
        connection.transport.abort()
    return len(late)
