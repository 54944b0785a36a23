"""Reading of requests from a connection: framing is checked, and everything is bounded, even what the parser swallows.

The parser calls back for each header, part of a body, and end. Between two calls it may swallow any number of bytes: an
endless line, chunk extensions, zeros of a chunk size, empty lines between requests. These bytes are counted in
``_unframed_bytes`` and have their own limit.
"""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from skewless.contract.errors import BusyError, RequestError, SkewlessError
from skewless.infra.platform.telemetry.request_ids import HEADER, is_request_id
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.http.hot_routes import Header
from skewless.serving.http.known_head import KnownHead
from skewless.serving.http.wire_limits import BodyBudget, WireLimits

_CHUNK_BYTES = 16_384  # bytes per call of the parser; all requests in them have been parsed before the first reply
_CHUNK_FRAME = 16  # bytes of framing per chunk that are not counted
_READ_HEADERS = frozenset({b"content-length", b"expect", b"host", b"transfer-encoding", HEADER})
_FIX = "see docs/serving.md, Limits"
_ARRIVAL_SECONDS = 1.0  # in which clients send what they have connected for, or the rest of a request
_MAX_HEADS = 8  # heads that a connection remembers, one after the other: where every head is new, none comes again


class RequestReader(HttpToolsProtocol):
    """One connection, as far as reading goes; subclasses serve the requests.

    A rejected request ends the connection: nothing after it is read.
    """

    limits: WireLimits
    bodies: BodyBudget

    certificate: PeerCertificate | None = None  # that the client has shown in the TLS handshake
    cycle: Any
    url = b""
    pipeline: Any  # requests that wait for their turn, the oldest at the right end
    _open_headers: list[Header] | None = None
    _unparsed: memoryview | None = None
    _bytes_read = 0
    _trailer_bytes = 0
    _unframed_bytes = 0
    _length = 0
    _max_body = 0
    _n_hosts = 0
    _request_id = b""
    _counted_bytes = 0
    _rejection: tuple[int, str] | None = None
    _has_upgrade = False
    _is_discarding = False
    _known_head: KnownHead | None = None
    _n_heads = 0
    _request_since: float | None = None
    _idle_since: float | None = None
    _last_reply_at = 0.0

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - as in uvicorn
        """Start to wait for a request."""
        super().connection_made(transport)
        self.flow = _Flow(self)
        self._idle_since = self.loop.time()
        if (tls := transport.get_extra_info("ssl_object")) is not None and (der := tls.getpeercert(binary_form=True)):
            self.certificate = PeerCertificate(der)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything that belongs to the unfinished request."""
        self._is_discarding, self._unparsed = True, None
        self._release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, or store them until earlier requests have replies."""
        # Nearly all requests arrive in one piece and need no copy.
        if self._unparsed is None and len(data) <= _CHUNK_BYTES:
            head = self._known_head
            if self._request_since is not None or self._unframed_bytes:
                self._read(data)
            elif head is None or not (start := head.find_body(data)) or not self.repeat_request(head, data, start):
                previous = self.cycle
                self._read(data)
                if self._n_heads < _MAX_HEADS and self.cycle is not previous:
                    self._n_heads += 1
                    self._known_head = self.known_head(data)
        else:
            self._unparsed = memoryview(data if self._unparsed is None else bytes(self._unparsed) + data)
            self.resume_parsing()

    def resume_parsing(self) -> None:
        """Parse stored bytes, unless requests wait for their turn."""
        # While a request waits, its successors stay bytes, and flow control bounds how many of them the client can
        # send.
        while self._unparsed and not self.pipeline:
            chunk, remainder = self._unparsed[:_CHUNK_BYTES], self._unparsed[_CHUNK_BYTES:]
            self._unparsed = remainder or None
            self._read(bytes(chunk))
        if self._unparsed:
            self.flow.pause_reading()

    def is_arriving(self, now: float) -> bool:
        """Return whether a request is expected soon: the client connected, or began one, less than a second ago."""
        began = self._request_since
        if began is None and self.cycle is None:
            began = self._idle_since
        return began is not None and now - began < _ARRIVAL_SECONDS

    def known_head(self, data: bytes) -> KnownHead | None:
        """Return the head of the request in these bytes, if one like it may be repeated; None: it must be parsed."""
        raise NotImplementedError

    def repeat_request(self, head: KnownHead, data: bytes, start: int) -> bool:
        """Serve a complete request with a known head and its body at ``start``; False: it must be parsed."""
        raise NotImplementedError

    def reject_request(self, status: int, error: SkewlessError) -> None:
        """Reject the request that is being read, or bytes that are not a request, in its turn; then hang up."""
        raise NotImplementedError

    def begin_request(self, *, keep_alive: bool) -> None:
        """Start a request whose headers are complete."""
        raise NotImplementedError

    def add_body(self, body: bytes) -> None:
        """Add a part of the body."""
        raise NotImplementedError

    def end_request(self) -> None:
        """End the request, which is complete."""
        raise NotImplementedError

    def keeps_body(self) -> bool:
        """Return whether the body of the request that is being read is stored rather than discarded."""
        raise NotImplementedError

    def stop_reading(self) -> None:
        """Discard all bytes from now on."""
        self._is_discarding, self._unparsed, self._request_since = True, None, None
        self._release()

    def on_message_begin(self) -> None:
        """Reset the state for a new request; the application's part is created only if the application is called."""
        if self.cycle is not None and not self.cycle.keep_alive:
            self._is_discarding = True  # client or server has said that the last request was the last one
            raise ValueError("a request after the last one")
        self.url = b""
        self.headers = self._open_headers = []
        self.expect_100_continue, self._request_id = False, b""
        self._bytes_read = self._trailer_bytes = self._length = self._n_hosts = 0
        self._request_since = now = self.loop.time()
        # The fair queue prefers the connection that was idle the longest; a pipelined request was not idle at all.
        self._last_reply_at, self._idle_since = self._idle_since or now, None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, without trailing white space; trailers are only counted."""
        # Trailers come after the check of the headers, so nothing may use them.
        if self._open_headers is None:
            self._trailer_bytes += len(name) + len(value)
            if self._trailer_bytes > self.limits.header_bytes:
                self._abort_parser(431, f"has more than {self.limits.header_bytes} bytes of trailers")
            return
        name, value = name.lower(), value.rstrip(b" \t")
        self._bytes_read += len(name) + len(value)
        if name in _READ_HEADERS:
            self._read_header(name, value)
        self._open_headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the headers, and start the request."""
        if self.parser.should_upgrade():
            self._has_upgrade = True
            if self.parser.get_method() == b"CONNECT":
                self._abort_parser(405, "has the method CONNECT, but this server is not a proxy")
            return
        self._unframed_bytes = 0
        if self._bytes_read + len(self.url) > self.limits.header_bytes:
            self._abort_parser(*self._header_limit_error())
        version = self.parser.get_http_version()
        if version != "1.1":
            self._check_http_1_0(version)
        # With two hosts, a proxy and this server could disagree about the target of a request.
        elif self._n_hosts != 1:
            self._abort_parser(400, f"has {self._n_hosts} `Host` headers instead of one")
        # From here on `_bytes_read` counts the body.
        self._bytes_read = 0
        self.begin_request(keep_alive=version == "1.1" and self.parser.should_keep_alive())
        # Only now: if `begin_request` rejects the request, `cycle` is not its own yet (see `reject_request`).
        self._open_headers = None

    def on_body(self, body: bytes) -> None:
        """Count a part of the body, and pass it on."""
        size = len(body)
        self._bytes_read += size
        if self._bytes_read > self._max_body:
            self._abort_parser(*self._body_limit_error())
        # Bytes of the body are not framing; what remains was swallowed between this call and the last one.
        unframed = self._unframed_bytes - size - _CHUNK_FRAME
        self._unframed_bytes = max(0, unframed)
        self.add_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if self._has_upgrade:
            return  # the request is parsed again, without its upgrade header
        self._request_since = None
        self._unframed_bytes = 0
        if self._counted_bytes:
            self._release()
        self.end_request()

    def _read(self, data: bytes) -> None:
        if self._is_discarding:
            return
        self._unframed_bytes += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                if not self._is_discarding:
                    status, problem = self._rejection or (400, _parser_problem(error))
                    self.reject_request(status, RequestError("the request", problem, fix=_FIX))
                return
        if self._request_since is not None or self._unframed_bytes > self.limits.header_bytes:
            self._check_unfinished()

    def _without_upgrade(self) -> bytes:
        """Return the head that was just parsed without its upgrade header, and replace the parser.

        The server speaks no other protocol. This parser would treat the following bytes as the other
        protocol, so that a body would not be read as a body.
        """
        self._has_upgrade = False
        line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn sets it: without it, bytes after `Connection: close` are an error before the request is served.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join([line, *headers, b"", b""])

    def _read_header(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            self._length = int(value)
        elif name == b"host":
            self._n_hosts += 1
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif name == HEADER:
            self._request_id = self._request_id or (value if is_request_id(value) else b"")
        # A proxy that understands another encoding, or two of them, sees another end of the body: what it takes for the
        # body could be the next request for us (request smuggling).
        elif value.lower() != b"chunked" or any(header_name == name for header_name, _ in self.headers):
            self._abort_parser(501, "has a transfer encoding other than `chunked`")

    def _check_http_1_0(self, version: str) -> None:
        if version != "1.0":
            self._abort_parser(505, f"uses HTTP/{version}, but the server supports only HTTP/1.1 and 1.0")
        if self._n_hosts > 1:
            self._abort_parser(400, f"has {self._n_hosts} `Host` headers instead of one")
        if any(name == b"transfer-encoding" for name, _ in self.headers):
            self._abort_parser(400, "has a transfer encoding, which HTTP/1.0 does not support")
        # HTTP/1.0 has no interim replies: the client would take `100 Continue` for the reply.
        self.expect_100_continue = False

    def _check_unfinished(self) -> None:
        """Limit the bytes of an unfinished request, and the bytes between two requests."""
        max_bytes = self.limits.header_bytes
        if self._unframed_bytes > max_bytes:
            self.reject_request(*self._unframed_error(max_bytes))
        elif self._open_headers is None and self.keeps_body():
            new_bytes = self._bytes_read - self._counted_bytes
            if self.bodies.reserve(new_bytes):
                self._counted_bytes = self._bytes_read
            else:
                problem = f"has reached its limit of {self.bodies.max_bytes} bytes for unfinished bodies"
                self.reject_request(503, BusyError("the server", problem, fix="retry, or raise unfinished_body_bytes"))

    def _unframed_error(self, max_bytes: int) -> tuple[int, RequestError]:
        if self._request_since is None:
            status, problem = 400, f"follows more than {max_bytes} bytes of empty lines"
        elif self._open_headers is not None:
            status, problem = self._header_limit_error()
        else:
            status, problem = 431, f"has more than {max_bytes} bytes of chunk sizes, extensions and trailers"
        return status, RequestError("the request", problem, fix=_FIX)

    def _header_limit_error(self) -> tuple[int, str]:
        return 431, f"has more than {self.limits.header_bytes} bytes in its first line and headers"

    def _body_limit_error(self) -> tuple[int, str]:
        return 413, f"has a body of more than {self._max_body} bytes"

    def _abort_parser(self, status: int, problem: str) -> None:
        """Abort the parser with an error; ``_read`` turns it into a rejection."""
        self._rejection = (status, problem)
        raise ValueError(problem)

    def _release(self) -> None:
        self.bodies.release(self._counted_bytes)
        self._counted_bytes = 0


def _parser_problem(error: httptools.HttpParserError) -> str:
    """Return the parser's error text, unless one of our callbacks raised the error."""
    detail = "" if isinstance(error, httptools.HttpParserCallbackError) else f": {str(error).rstrip('.').lower()}"
    return f"is not valid HTTP/1.1{detail}"


class _Flow(FlowControl):
    """Flow control that pauses reading while requests wait for their turn."""

    def __init__(self, reader: RequestReader) -> None:
        super().__init__(reader.transport)
        self._reader = reader

    def resume_reading(self) -> None:
        """Resume reading, if no request waits."""
        if not self._reader.pipeline and self._reader._unparsed is None:  # noqa: SLF001 - the same connection
            super().resume_reading()
