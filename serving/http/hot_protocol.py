"""Hot routes answered inside uvicorn's own protocol: its parser, keep-alive, limits and TLS, without ASGI.

All other requests go to the application as ever. A request waits until those before it on its connection are answered:
``RequestReader`` calls ``enter``, or ``refuse``; both put a request in the ``pipeline`` or begin to answer it
(``_start_asgi_task``); its handler, or the application, replies; ``on_response_complete`` begins the next.
"""

from __future__ import annotations

import http
import urllib.parse
from collections.abc import Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from skewless.contract.errors import RequestError, SkewlessError
from skewless.serving.http.fair_queue import FairQueue
from skewless.serving.http.hot_routes import JSON, Exchange, Handler, Header, HotRoutes, handled
from skewless.serving.http.request_reader import RequestReader
from skewless.serving.http.wire_limits import BodyBudget, WireLimits

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LENGTH = b"content-length: "
_KNOWN, _KNOWN_BYTES = 1_000, 256  # hot paths remembered as they came, and the longest of them
_CLOSE = b"connection: close\r\n"


class HotCycle:
    """A hot request, or a refusal, on its way through, with what uvicorn looks at in a request's cycle.

    A refused one is handled as soon as it is its turn, and its body is not kept.
    """

    message_event = SimpleNamespace(set=lambda: None)  # uvicorn wakes who waits for more of a request: here nobody
    begun = False
    complete = False
    disconnected = False
    expects = False
    handled = False
    refused = False
    response_complete = False
    rested_since = 0.0

    def __init__(self, handler: Handler, path: str, query: bytes, headers: list[Header], *, keep_alive: bool) -> None:
        self.handler = handler
        self.path = path
        self.query = query
        self.headers = headers
        self.keep_alive = keep_alive
        self.body: list[bytes] = []


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


def _refusing(error: SkewlessError, status: int | None = None) -> Handler:
    """Return what replies with an error."""
    return lambda exchange: exchange.refuse(error, status)


class _Way:
    """The transport as the application's replies see it: they hang up as all others do."""

    def __init__(self, lane: HotProtocol) -> None:
        self.write = lane.transport.write
        self.is_closing = lane.transport.is_closing
        self.close = lane.hang_up


class HotProtocol(RequestReader):
    """One connection.

    Subclasses made by ``fast_lane`` say which routes and limits are meant.
    """

    routes: HotRoutes
    known: dict[bytes, tuple[Handler, str]]
    usual: _UsualHead
    turns: FairQueue | None

    _answering: Any = None
    _ended = False
    _blocked_since: float | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that the application is at, too: uvicorn tells only the last that came."""
        self.pipeline.clear()
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn says None
        """Answer what was asked before the client closed its side; True: the connection stays for that.

        With TLS the event loop closes both sides whatever is said here.
        """
        if self.scheme == "https":
            return False
        self._ended = True
        if self._busy_since is not None and not self._deaf:
            self.refuse(400, RequestError("the request", "ends before it is complete", fix="send all of it"))
        if self.cycle is None or self.cycle.response_complete:
            return False
        self.cycle.keep_alive = False
        return True

    def resume_writing(self) -> None:
        """Answer what waits, too."""
        super().resume_writing()
        if self.pipeline and (self._answering is None or self._answering.response_complete):
            self._go_on()

    def enter(self, *, keep_alive: bool) -> None:
        """Choose the lane."""
        handler, path = self.known.get(self.url) or self._find()
        self._most = self.limits.most(path) if handler is None else self.limits.body_bytes
        if self._length > self._most:
            self._stop(*self._too_much())
        if handler is None or self.parser.get_method() != b"POST":
            self._enter_slow_lane()
            return
        cycle = HotCycle(handler, path, self.url.partition(b"?")[2], self.headers, keep_alive=keep_alive)
        cycle.expects, cycle.rested_since = self.expect_100_continue, self._rested_since
        refusal = self.routes.admit(self.headers)
        if refusal is not None:
            cycle.handler, cycle.refused = _refusing(refusal), True
            cycle.keep_alive = keep_alive and not cycle.expects  # nobody could tell whether its body follows
        waits = (self.cycle is not None and not self.cycle.response_complete) or self.flow.write_paused
        if waits or cycle.refused or cycle.expects:
            self._queue(cycle, waits=waits)
        else:  # as nearly all: begin at once, without a detour
            self.cycle = self._answering = cycle
            cycle.begun = True

    def take(self, body: bytes) -> None:
        """Keep a part of the body."""
        cycle = self.cycle
        if type(cycle) is not HotCycle:
            HttpToolsProtocol.on_body(self, body)
        elif not cycle.refused:
            cycle.body.append(body)

    def holds_body(self) -> bool:
        """Say whether the body is kept."""
        cycle = self.cycle
        return not cycle.response_complete if type(cycle) is not HotCycle else not cycle.refused

    def leave(self) -> None:
        """Let the handler answer, if it is the request's turn."""
        cycle = self.cycle
        if cycle.response_complete:
            self._idle_since = self.loop.time()
        elif type(cycle) is not HotCycle:
            HttpToolsProtocol.on_message_complete(self)
        else:
            cycle.complete = True
            if cycle.begun and not cycle.handled:
                self._handle(cycle)

    def refuse(self, status: int, error: SkewlessError) -> None:
        """Answer the request that is being read in its turn, but not twice; then hang up."""
        refused = self.cycle if self._busy_since is not None and self._head is None else None
        self.stop_reading()
        if refused is None:
            waits = self.cycle is not None and not self.cycle.response_complete
        elif refused.response_complete:
            self.hang_up()
            return
        elif type(refused) is not HotCycle and refused.response_started:
            refused.keep_alive = False
            return
        else:
            waits = bool(self.pipeline) and self.pipeline[0][0] is refused
            if waits:
                self.pipeline.popleft()
            refused.disconnected = True
            refused.message_event.set()
        cycle = HotCycle(_refusing(error, status), self.url.decode("latin-1"), b"", [], keep_alive=False)
        cycle.refused = True
        self._queue(cycle, waits=waits)

    def hang_up(self) -> None:
        """Close; the rest of a refused request is taken for a while, or it would take the reply with it."""
        unfinished = self._deaf or self._busy_since is not None
        self.stop_reading()
        self.pipeline.clear()
        if unfinished and not self._ended:
            self.loop.call_later(self.limits.linger_seconds, self.transport.close)
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Let the next request have its turn."""
        self.server_state.total_requests += 1
        if self.pipeline or self.flow.read_paused:
            self._go_on()
        elif self._busy_since is None:
            self._idle_since = self.loop.time()

    def timed_out(self, now: float) -> bool:
        """Say whether a request takes too long to arrive, a reply to be read, or the next request to come."""
        if self.flow.read_paused and self._busy_since is not None:
            self._busy_since = now  # we do not read it
        blocked = self.transport.get_write_buffer_size() > 0
        self._blocked_since = (self._blocked_since or now) if blocked else None
        for since in (self._busy_since, self._blocked_since):
            if since is not None and now - since > self.limits.request_seconds:
                return True
        return self._idle_since is not None and now - self._idle_since > self.limits.keep_alive_seconds

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

    def _enter_slow_lane(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        HttpToolsProtocol.on_headers_complete(self)
        self.cycle.transport = _Way(self)

    def _queue(self, cycle: HotCycle, *, waits: bool) -> None:
        self.cycle = cycle
        if waits:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
        else:
            self._start_asgi_task(cycle, self.app)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:  # noqa: ANN401 - as in uvicorn
        """Begin to answer: it is the request's turn, whichever lane it is on."""
        self._answering = cycle
        if type(cycle) is not HotCycle:
            if cycle.waiting_for_100_continue and cycle.more_body:
                # Not only when the application asks: a client that is answered before would be free to send no body.
                cycle.waiting_for_100_continue = False
                self.transport.write(_CONTINUE)
            super()._start_asgi_task(cycle, app)
            return
        cycle.begun = True
        if cycle.complete or cycle.refused:
            self._handle(cycle)
        elif cycle.expects:
            self.transport.write(_CONTINUE)

    def _handle(self, cycle: HotCycle) -> None:
        exchange = Exchange(
            method="POST",
            path=cycle.path,
            query=cycle.query,
            headers=cycle.headers,
            body=b"".join(cycle.body),
            send=partial(self._send, cycle),
        )
        if cycle.refused or self.turns is None:
            handled(cycle.handler, exchange)
        else:
            self.turns.take(cycle.handler, exchange, cycle)
        cycle.handled = True

    def _go_on(self) -> None:
        """Answer the next request, or read more."""
        if self.pipeline and not self.flow.write_paused:
            self._start_asgi_task(*self.pipeline.pop())
        self.read_on()
        self.flow.resume_reading()
        if self._busy_since is None and self.cycle.response_complete:
            self._idle_since = self.loop.time()

    def _send(self, cycle: HotCycle, status: int, body: bytes, headers: Sequence[Header]) -> None:
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
        if cycle.keep_alive:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.hang_up()

    def _write(self, status: int, body: bytes, headers: Sequence[Header], *, close: bool) -> None:
        default = self.server_state.default_headers
        usual = headers is JSON and status == http.HTTPStatus.OK
        head = self.usual.after(default) if usual else _head(status, (*default, *headers))
        self.transport.write(b"%b%b%b%d\r\n\r\n%b" % (head, _CLOSE if close else b"", _LENGTH, len(body), body))


def fast_lane(
    routes: HotRoutes, limits: WireLimits, bodies: BodyBudget | None = None, turns: FairQueue | None = None
) -> type[HotProtocol]:
    """Return the protocol class for uvicorn's ``http`` option.

    Args:
        routes: what is answered without the application.
        limits: of each request.
        bodies: what all connections of the process hold together; None: those of this class have their own.
        turns: where requests wait while there is no room for them; None: each is handed over at once.
    """
    bodies = bodies or BodyBudget(limits.unfinished_bytes)
    own = {"routes": routes, "limits": limits, "bodies": bodies, "turns": turns, "known": {}, "usual": _UsualHead()}
    return type("HotProtocol", (HotProtocol,), own)


def reap(connections: set[Any], now: float) -> int:
    """Hang up on connections that have timed out; return how many those were."""
    late = [each for each in connections if isinstance(each, HotProtocol) and each.timed_out(now)]
    for connection in late:
        connection.transport.abort()
    return len(late)
