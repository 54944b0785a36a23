"""One call on the gRPC port: its messages, its reply, and its end.

::

    start ──► admit ──► receive ──► handle ──► send, fail or reply ──► closed
               └ fail     └ timed out: cancel

Everything here runs on the event loop. ``GrpcServer`` calls the callbacks ``_on_...`` with the events of gRPC's core.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import orjson
from grpc._cython import cygrpc

from skewless.contract.errors import BusyError, RequestError, SkewlessError
from skewless.contract.render import shorten
from skewless.infra.platform.telemetry.request_ids import HEADER, find_request_id
from skewless.infra.platform.telemetry.trace import Trace
from skewless.serving.access.caller import ANYONE
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.access.gate import Headers
from skewless.serving.http.hot_routes import Admit, Exchange, Header
from skewless.serving.http.middleware import defect_error
from skewless.serving.http.reply import error_json, http_status, retry_after

PATH = "/v2/"  # of the method, as in HTTP: errors are one sentence
_OK, _UNIMPLEMENTED = 200, 405
_STATUS = cygrpc.StatusCode
_CODES = {
    400: _STATUS.invalid_argument,
    401: _STATUS.unauthenticated,
    403: _STATUS.permission_denied,
    404: _STATUS.not_found,
    405: _STATUS.unimplemented,
    409: _STATUS.aborted,
    413: _STATUS.resource_exhausted,
    429: _STATUS.resource_exhausted,
    503: _STATUS.unavailable,
    504: _STATUS.deadline_exceeded,
}
_MAX_DETAILS = 2_000  # characters; trailers have 8 KiB, in which a character may take 3 bytes, or more
_NO_LIMIT_S = 1e8  # three years
_TRAILERS = {b"retry-after", b"traceresponse", HEADER}  # headers of HTTP that are trailing metadata
_PEM = b"x509_pem_cert"  # gRPC's name of the client's certificate


@dataclass(frozen=True, kw_only=True)
class GrpcMethod:
    """One method.

    Args:
        admit: returns the caller of a call before its message is read, or raises AccessError.
        handle: handles one message; it replies, fails or sends, at once or later.
        kind: ``call``: one message, one reply; ``watch``: one message, replies until one side ends the call;
            ``stream``: any number of messages, until the client closes its side, and replies to each.
    """

    admit: Admit
    handle: Callable[[GrpcCall, bytes], None]
    kind: Literal["call", "watch", "stream"] = "call"


@dataclass(slots=True, kw_only=True, eq=False)
class GrpcExchange(Exchange):
    """The exchange of a call, whose body is its message.

    Args:
        deadline: of the client, on the event loop's clock, seconds; None: it has none.
    """

    deadline: float | None


class GrpcCall:
    """One call.

    Attributes:
        disconnected: the client has cancelled, its deadline has passed, or the call is complete.
        last_reply_at: when the call began, on the event loop's clock, for the queue of waiting requests.
        client_since: since when the server waits for the client, to send its message or to read; None: it does not.
    """

    __slots__ = (
        "_call",
        "_caller",
        "_deadline",
        "_is_ending",
        "_method",
        "_name",
        "_on_closed",
        "_outgoing",
        "_started",
        "client_since",
        "disconnected",
        "headers",
        "last_reply_at",
    )

    def __init__(self, event: Any, on_closed: Callable[[GrpcCall], None]) -> None:  # noqa: ANN401 - of grpcio
        self._call = event.call
        self._deadline: float = event.call_details.deadline
        self._name = _name_of(event.call_details.method)
        self._on_closed = on_closed
        self._method: GrpcMethod | None = None
        self._caller = ANYONE
        self._outgoing: deque[bytes] = deque()
        self._started = self._is_ending = self.disconnected = False
        self.headers: Headers = [(_bytes(name), _bytes(value)) for name, value in event.invocation_metadata]
        self.last_reply_at = asyncio.get_running_loop().time()
        self.client_since: float | None = None
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(0),), self._on_close)

    def start(self, method: GrpcMethod | None) -> None:
        """Admit the call and read its message; None: there is no such method."""
        if method is None:
            fix = "see docs/oip.md, gRPC"
            self.fail(RequestError("the method", "is unknown", value=self._name, fix=fix), _UNIMPLEMENTED)
            return
        self._method = method
        try:
            self._caller = method.admit(self.headers, self.certificate)
        except SkewlessError as error:
            self.fail(error)
        else:
            self._receive()

    def exchange(self, message: bytes, trace: Trace | None = None) -> GrpcExchange:
        """Return the exchange of a message; its reply is the reply of the call."""
        return GrpcExchange(
            method="POST",
            path=PATH + self._name,
            query=b"",
            headers=self.headers,
            body=message,
            caller=self._caller,
            send=self._reply_as_http,
            deadline=self._loop_deadline(),
            trace=trace,
            request_id=find_request_id(self.headers),
        )

    def reply(self, message: bytes, metadata: Sequence[tuple[str, str]] = ()) -> None:
        """Send the only message of the reply, and end the call."""
        self._end((cygrpc.SendMessageOperation(message, 0),), _STATUS.ok, b"", metadata)

    def send(self, message: bytes) -> None:
        """Send a message of a stream."""
        if self.disconnected or self._is_ending:
            return
        self._outgoing.append(message)
        if len(self._outgoing) == 1:
            self._send_next()

    def fail(self, error: SkewlessError, status: int | None = None) -> None:
        """End the call with an error; its code is that of an HTTP status, None: of the status of its kind."""
        code = _CODES.get(status or http_status(error), _STATUS.internal)
        wait = tuple((name.lower(), value) for name, value in retry_after(error).items())
        self._end((), code, _details(error_json(error, PATH)["error"]), wait)

    def end(self) -> None:
        """End a stream without an error."""
        if not self.disconnected and not self._is_ending:
            self._is_ending = True
            if not self._outgoing:
                self._finish((), _STATUS.ok, b"", ())

    def cancel(self) -> None:
        """End the call without waiting for the client."""
        self._call.cancel()

    def stop(self) -> None:
        """End the call, unless its message is being handled: the server stops."""
        if self.client_since is not None or (self._method is not None and self._method.kind != "call"):
            self.fail(BusyError("the server", "is shutting down", fix="retry on another server"))

    @property
    def certificate(self) -> PeerCertificate | None:
        """The certificate that the client has shown."""
        pems = cygrpc.auth_context(self._call).get(_PEM)
        return PeerCertificate.from_pem(pems[0]) if pems else None

    def _loop_deadline(self) -> float | None:
        # gRPC's core has turned the client's time limit into a time of the system's clock; without one, the far future.
        remaining_s = self._deadline - time.time()
        return asyncio.get_running_loop().time() + remaining_s if remaining_s < _NO_LIMIT_S else None

    def _reply_as_http(self, status: int, body: bytes, headers: Sequence[Header]) -> None:
        """Send a reply of a handler that HTTP shares: the body of an error has its sentence."""
        metadata = tuple((name.decode(), value.decode()) for name, value in headers if name in _TRAILERS)
        if status == _OK:
            self.reply(body, metadata)
        else:
            self._end((), _CODES.get(status, _STATUS.internal), _details(orjson.loads(body)["error"]), metadata)

    def _end(self, operations: Sequence[Any], code: int, details: bytes, metadata: Sequence[Any]) -> None:
        """End the call, unless it has ended."""
        if not self.disconnected and not self._is_ending:
            self._is_ending = True
            self._finish(operations, code, details, metadata)

    def _receive(self) -> None:
        self.client_since = asyncio.get_running_loop().time()
        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), self._on_message)

    def _send_next(self) -> None:
        self.client_since = asyncio.get_running_loop().time()
        operations = (*self._initial_metadata(), cygrpc.SendMessageOperation(self._outgoing[0], 0))
        self._call.start_server_batch(operations, self._on_sent)

    def _finish(self, operations: Sequence[Any], code: int, details: bytes, metadata: Sequence[Any]) -> None:
        self.client_since = asyncio.get_running_loop().time()
        status = cygrpc.SendStatusFromServerOperation(metadata, code, details, 0)
        self._call.start_server_batch((*self._initial_metadata(), *operations, status), _ignore)

    def _initial_metadata(self) -> Sequence[Any]:
        if self._started:
            return ()
        self._started = True
        return (cygrpc.SendInitialMetadataOperation((), 0),)

    def _on_message(self, event: Any) -> None:  # noqa: ANN401 - of grpcio
        self.client_since = None
        message: bytes | None = event.batch_operations[0].message()
        method = self._method
        if self.disconnected or self._is_ending or method is None:
            return
        if message is not None:
            try:
                method.handle(self, message)
            except Exception as error:  # noqa: BLE001 - the client waits for a reply, whatever failed
                self.fail(error if isinstance(error, SkewlessError) else defect_error(error, PATH + self._name))
            if method.kind == "stream" and not self._outgoing and not self._is_ending:
                self._receive()
        elif method.kind == "stream":
            self.end()
        else:
            self.fail(RequestError("the call", "has no message", fix="send one message"))

    def _on_sent(self, event: Any) -> None:  # noqa: ANN401 - of grpcio
        self.client_since = None
        self._outgoing.popleft()
        if self.disconnected or not event.success:
            return
        if self._outgoing:
            self._send_next()
        elif self._is_ending:
            self._finish((), _STATUS.ok, b"", ())
        elif self._method is not None and self._method.kind == "stream":
            self._receive()

    def _on_close(self, _: Any) -> None:  # noqa: ANN401 - of grpcio
        self.disconnected, self.client_since = True, None
        self._on_closed(self)


@lru_cache(maxsize=64)
def _name_of(path: bytes) -> str:
    return path.decode("latin-1").rpartition("/")[2]


def _ignore(_: Any) -> None:  # noqa: ANN401 - of grpcio
    """Do nothing after the last batch of a call: its end is another event."""


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _details(text: str) -> bytes:
    return shorten(text, _MAX_DETAILS).encode(errors="replace")
