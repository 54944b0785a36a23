"""Fast path of prediction requests: served inside uvicorn's protocol (parser, keep-alive, limits, TLS), without ASGI.

All other requests go to the application. Replies on a connection keep the order of its requests. ``RequestReader``
calls ``begin_request``, or ``reject_request``. Both either start the request (``_start_asgi_task``) or put it in the
``pipeline``, where it waits until earlier requests on its connection have replies. Its handler, or the application,
replies; ``on_response_complete`` starts the next request.
"""

from __future__ import annotations

import http
import urllib.parse
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from skewless.contract.errors import AccessError, RequestError, SkewlessError
from skewless.serving.http.fair_queue import FairQueue
from skewless.serving.http.hot_routes import (
    JSON,
    Handler,
    Header,
    HotCycle,
    HotRoutes,
    ReplyHead,
    call_handler,
    encode_head,
    error_handler,
)
from skewless.serving.http.known_head import KnownHead
from skewless.serving.http.request_reader import RequestReader
from skewless.serving.http.wire_limits import BodyBudget, WireLimits

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LENGTH = b"content-length: "
_MAX_CACHED, _MAX_CACHED_BYTES = 1_000, 256  # maximum number and length of the raw paths in the handler cache
_CLOSE = b"connection: close\r\n"


class HotProtocol(RequestReader):
    """One connection.

    ``make_protocol`` creates subclasses with routes and limits as class attributes: uvicorn calls the constructor.
    """

    routes: HotRoutes
    handler_cache: dict[bytes, tuple[Handler, str]]
    usual_head: ReplyHead
    queue: FairQueue | None

    _current: Any = None
    _client_closed = False
    _blocked_since: float | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify also the request that the application is serving: uvicorn notifies only the last request."""
        # Nobody would receive the replies of the waiting requests.
        self.pipeline.clear()
        if self._current is not None:
            self._current.disconnected = True
            self._current.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn says None
        """Serve the requests that arrived before the client closed its side; True: the connection stays open for that.

        With TLS the event loop closes both sides, whatever this returns.
        """
        if self.scheme == "https":
            return False
        self._client_closed = True
        if self._request_since is not None and not self._is_discarding:
            self.reject_request(
                400, RequestError("the request", "ends before it is complete", fix="send the complete request")
            )
        if self.cycle is None or self.cycle.response_complete:
            return False
        # No later event from the client would close the connection: the last reply must do it.
        self.cycle.keep_alive = False
        return True

    def resume_writing(self) -> None:
        """Continue with waiting requests, too."""
        super().resume_writing()
        # uvicorn resumes only its own replies; requests may wait here because writing was paused when they came.
        if self.pipeline and (self._current is None or self._current.response_complete):
            self._start_next()

    def begin_request(self, *, keep_alive: bool) -> None:
        """Start a request on the fast path if its route is hot, otherwise in the application."""
        handler, path = self.handler_cache.get(self.url) or self._find_handler()
        self._max_body = self.limits.max_body(path) if handler is None else self.limits.body_bytes
        # Before the first byte of the body: a client that waits for `100 Continue` then never sends it.
        if self._length > self._max_body:
            self._abort_parser(*self._body_limit_error())
        if handler is None or self.parser.get_method() != b"POST":
            # The application also replies to a wrong method on a hot path, with 405.
            self._begin_app_request()
            return
        query = self.url.partition(b"?")[2]
        cycle = HotCycle(handler, path, query, self.headers, self._send, keep_alive=keep_alive)
        cycle.expects_continue, cycle.last_reply_at = self.expect_100_continue, self._last_reply_at
        cycle.request_id = self._request_id
        # Before the body is read: a client without a valid key must not make the server store one.
        self._admit(cycle)
        # A client that does not read its replies must not make the server produce more of them.
        must_wait = (self.cycle is not None and not self.cycle.response_complete) or self.flow.write_paused
        if must_wait or cycle.is_rejected or cycle.expects_continue:
            self._enqueue(cycle, must_wait=must_wait)
        else:  # nearly all requests: start at once
            self.cycle = self._current = cycle
            cycle.is_started = True

    def known_head(self, data: bytes) -> KnownHead | None:
        """Return the head of the request in these bytes, if one like it may be repeated; None: it must be parsed."""
        cycle, limits = self.cycle, self.limits
        return KnownHead.of(data, cycle, limits.header_bytes, self._max_body) if type(cycle) is HotCycle else None

    def repeat_request(self, head: KnownHead, data: bytes, start: int) -> bool:
        """Serve a complete request with a known head and its body at ``start``; False: it must be parsed."""
        last = self.cycle
        if not last.response_complete or not last.keep_alive or self._is_discarding or self.flow.write_paused:
            return False
        cycle = head.new_request(data, start, self._send)
        cycle.last_reply_at, self._idle_since = self._idle_since or self.loop.time(), None
        self._admit(cycle)
        self.cycle = self._current = cycle
        self._handle(cycle)
        return True

    def add_body(self, body: bytes) -> None:
        """Store a part of the body."""
        cycle = self.cycle
        if type(cycle) is not HotCycle:
            HttpToolsProtocol.on_body(self, body)
        elif not cycle.is_rejected:
            cycle.parts.append(body)

    def keeps_body(self) -> bool:
        """Return whether the body is stored rather than discarded."""
        cycle = self.cycle
        return not cycle.response_complete if type(cycle) is not HotCycle else not cycle.is_rejected

    def end_request(self) -> None:
        """Call the handler, if it is the request's turn."""
        cycle = self.cycle
        # The reply was given before the end of its request, so the connection becomes idle only now.
        if cycle.response_complete:
            self._idle_since = self.loop.time()
        elif type(cycle) is not HotCycle:
            HttpToolsProtocol.on_message_complete(self)
        else:
            cycle.complete = True
            # A rejected request is handled when it starts, before its body has arrived.
            if cycle.is_started and not cycle.is_handled:
                self._handle(cycle)

    def reject_request(self, status: int, error: SkewlessError) -> None:
        """Reject the request that is being read, in its turn and at most once; then close the connection."""
        # Until its headers are complete, `cycle` is still the previous request of the connection.
        is_rejected = self.cycle if self._request_since is not None and self._open_headers is None else None
        self.stop_reading()
        if is_rejected is None:
            must_wait = self.cycle is not None and not self.cycle.response_complete
        # A second reply would be taken for the reply to the next request.
        elif is_rejected.response_complete:
            self.hang_up()
            return
        # A second status line would land in the middle of the application's body.
        elif type(is_rejected) is not HotCycle and is_rejected.response_started:
            is_rejected.keep_alive = False
            return
        else:
            # If it waits, it came last and is at the left end; the rejection takes its place.
            must_wait = bool(self.pipeline) and self.pipeline[0][0] is is_rejected
            if must_wait:
                self.pipeline.popleft()
            is_rejected.disconnected = True
            is_rejected.message_event.set()
        path = self.url.decode("latin-1")
        cycle = HotCycle(error_handler(error, status), path, b"", [], self._send, keep_alive=False)
        cycle.is_rejected = True
        self._enqueue(cycle, must_wait=must_wait)

    def hang_up(self) -> None:
        """Close the connection; discard the rest of a rejected request first, since a reset would destroy the reply."""
        unfinished = self._is_discarding or self._request_since is not None
        self.stop_reading()
        self.pipeline.clear()
        if unfinished and not self._client_closed:
            self.loop.call_later(self.limits.linger_seconds, self.transport.close)
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Start the next request."""
        self.server_state.total_requests += 1
        if self.pipeline or self.flow.read_paused:
            self._start_next()
        elif self._request_since is None:
            self._idle_since = self.loop.time()

    def has_timed_out(self, now: float) -> bool:
        """Return whether a request, the client's reading of a reply, or the next request takes too long."""
        if self.flow.read_paused and self._request_since is not None:
            self._request_since = now  # the server has paused reading: not the client's fault
        # A client that never reads its reply would hold the buffer and the connection for ever.
        is_blocked = self.transport.get_write_buffer_size() > 0
        self._blocked_since = (self._blocked_since or now) if is_blocked else None
        for started_at in (self._request_since, self._blocked_since):
            if started_at is not None and now - started_at > self.limits.request_seconds:
                return True
        return self._idle_since is not None and now - self._idle_since > self.limits.keep_alive_seconds

    def _admit(self, cycle: HotCycle) -> None:
        try:
            cycle.caller = self.routes.admit(cycle.headers, self.certificate)
        except AccessError as rejection:
            cycle.handler, cycle.is_rejected = error_handler(rejection), True
            # A rejected client that waits for `100 Continue` may or may not send its body: nothing could tell whether
            # the next bytes are a body or a request.
            cycle.keep_alive = cycle.keep_alive and not cycle.expects_continue

    def _find_handler(self) -> tuple[Handler | None, str]:
        """Return the handler of the request's path, None if the route is not hot, and the path."""
        raw = httptools.parse_url(self.url).path
        path = raw.decode("ascii")
        if "%" in path:
            path = urllib.parse.unquote(path)
        handler = self.routes.find(path)
        # A URL with a query is not cached: the cache is looked up by the complete URL, which hardly ever comes again.
        if (
            handler is not None
            and raw == self.url
            and len(self.handler_cache) < _MAX_CACHED
            and len(raw) <= _MAX_CACHED_BYTES
        ):
            self.handler_cache[raw] = handler, path
        return handler, path

    def _begin_app_request(self) -> None:
        url, headers, expects_continue = self.url, self.headers, self.expect_100_continue
        # uvicorn resets the fields that have been parsed already, and puts a new list of headers into the ASGI scope:
        # this list must be extended, not replaced.
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.expect_100_continue = url, expects_continue
        self.headers.extend(headers)
        if self.certificate is not None:
            self.scope["state"]["certificate"] = self.certificate
        HttpToolsProtocol.on_headers_complete(self)
        # The application's replies must not close the connection before unread requests are handled.
        transport = self.transport
        self.cycle.transport = SimpleNamespace(
            write=transport.write, is_closing=transport.is_closing, close=self.hang_up
        )

    def _enqueue(self, cycle: HotCycle, *, must_wait: bool) -> None:
        self.cycle = cycle
        if must_wait:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
        else:
            self._start_asgi_task(cycle, self.app)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:  # noqa: ANN401 - as in uvicorn
        """Start a request whose turn it is, on the fast path or in the application."""
        # The name is uvicorn's, whose own code calls this for requests of the application.
        self._current = cycle
        if type(cycle) is not HotCycle:
            if cycle.waiting_for_100_continue and cycle.more_body:
                # At once, not when the application reads: after an early reply the client might send no body.
                cycle.waiting_for_100_continue = False
                self.transport.write(_CONTINUE)
            super()._start_asgi_task(cycle, app)
            return
        cycle.is_started = True
        if cycle.complete or cycle.is_rejected:
            self._handle(cycle)
        elif cycle.expects_continue:
            self.transport.write(_CONTINUE)

    def _handle(self, cycle: HotCycle) -> None:
        if cycle.parts:
            cycle.body = cycle.parts[0] if len(cycle.parts) == 1 else b"".join(cycle.parts)
            cycle.parts = []
        begin_trace = self.routes.begin_trace
        if begin_trace is not None and not cycle.is_rejected:
            cycle.trace = begin_trace(cycle.headers)
        if cycle.is_rejected or self.queue is None:
            call_handler(cycle.handler, cycle)
        else:
            self.queue.submit(cycle.handler, cycle, cycle)
        # Only after the call: a handler that replies at once must not start the next request inside the parser's
        # callback.
        cycle.is_handled = True

    def _start_next(self) -> None:
        """Start the next request, or read more."""
        if self.pipeline and not self.flow.write_paused:
            self._start_asgi_task(*self.pipeline.pop())
        # Stored bytes arrived before those in the socket, so they are parsed first.
        self.resume_parsing()
        self.flow.resume_reading()
        if self._request_since is None and self.cycle.response_complete:
            self._idle_since = self.loop.time()

    def _send(self, cycle: HotCycle, status: int, body: bytes, headers: Sequence[Header]) -> None:
        # A handler that fails after its reply makes `call_handler` reply a second time.
        if cycle.response_complete:
            return
        if not cycle.is_handled:
            # A client that has its reply sends the next request: replies during parsing could prolong it for seconds.
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
        defaults = self.server_state.default_headers
        usual_head = headers is JSON and status == http.HTTPStatus.OK
        head = self.usual_head.with_defaults(defaults) if usual_head else encode_head(status, (*defaults, *headers))
        # One write: the event loop sends each write as a packet of its own, since Nagle's algorithm is off.
        self.transport.write(b"%b%b%b%d\r\n\r\n%b" % (head, _CLOSE if close else b"", _LENGTH, len(body), body))


def make_protocol(
    routes: HotRoutes, limits: WireLimits, bodies: BodyBudget | None = None, queue: FairQueue | None = None
) -> type[HotProtocol]:
    """Return the protocol class for uvicorn's ``http`` option.

    Args:
        routes: routes of the fast path.
        limits: limits of each request.
        bodies: memory budget for unfinished bodies of all connections; None: a budget for this class alone.
        queue: queue for requests while the server has no room; None: every request starts at once.
    """
    bodies = bodies or BodyBudget(limits.unfinished_bytes)
    attributes = {"routes": routes, "limits": limits, "bodies": bodies, "queue": queue}
    attributes |= {"handler_cache": {}, "usual_head": ReplyHead()}
    return type("HotProtocol", (HotProtocol,), attributes)
