"""Routes of the fast path, the exchange that their handlers receive, its state on a connection, and an adapter."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import orjson
from fastapi import Request, Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from skewless.contract.errors import SkewlessError
from skewless.infra.platform.telemetry.request_ids import HEADER, log_request, new_request_id
from skewless.infra.platform.telemetry.trace import Trace
from skewless.serving.access.caller import ANYONE, Caller
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.http.middleware import defect_error, log_refusal
from skewless.serving.http.reply import error_json, http_status, retry_after
from skewless.serving.metrics.telemetry import BeginTrace

Header = tuple[bytes, bytes]
Send = Callable[[int, bytes, Sequence[Header]], None]
JSON: tuple[Header, ...] = ((b"content-type", b"application/json"),)


@dataclass(slots=True, kw_only=True, eq=False)
class Exchange:
    """A request to a hot route; its handler replies exactly once, at once or from a callback.

    Args:
        method: in capitals.
        path: percent-decoded, without the query.
        query: the raw text after the question mark.
        headers: in order of arrival, names in lower case.
        caller: who sends it, and which models it may use.
        send: sends status, body and headers; the server adds content-length.
        waited_s: seconds between the end of the request and the start of its handler.
        trace: of the request, which the reply ends; None: it is not traced.
        request_id: of the caller, which the reply returns; empty: there is none, and an error gets a new one.
    """

    method: str
    path: str
    query: bytes
    headers: Sequence[Header]
    body: bytes
    caller: Caller
    send: Send
    waited_s: float = 0.0
    trace: Trace | None = None
    request_id: bytes = b""

    def reply(self, status: int, body: bytes, headers: Sequence[Header] = JSON) -> None:
        """Send the reply, with the caller's id; that of a traced request names its span."""
        if self.request_id:
            headers = (*headers, (HEADER, self.request_id))
        trace = self.trace
        if trace is None:
            self.send(status, body, headers)
        else:
            self.send(status, body, (*headers, (b"traceresponse", trace.context.header())))
            trace.finish(status)

    def reply_error(self, error: SkewlessError, status: int | None = None) -> None:
        """Send an error in the format of the path; None: with the status of its kind."""
        if self.trace is not None and not self.trace.ended_at:
            self.trace.attributes |= {"skewless.outcome": error.kind, "error.type": error.kind}
        self.request_id = self.request_id or new_request_id()
        status = status or http_status(error)
        log_refusal(error, self.method, self.path, status, self.request_id)
        headers = [(name.lower().encode(), value.encode()) for name, value in retry_after(error).items()]
        self.reply(status, orjson.dumps(error_json(error, self.path)), (*JSON, *headers))


Handler = Callable[[Exchange], None]
Find = Callable[[str], Handler | None]
Admit = Callable[[Sequence[Header], PeerCertificate | None], Caller]


def admit_anyone(_headers: Sequence[Header], _certificate: PeerCertificate | None) -> Caller:
    """Admit a request without a check."""
    return ANYONE


@dataclass(frozen=True)
class HotRoutes:
    """Finds the handler of a path; all hot routes are POST.

    Args:
        fixed: handlers by path.
        find_other: finds handlers of paths with variable parts.
        admit: returns the caller of a request before its body is read, or raises AccessError.
        begin_trace: returns the trace of an admitted request with these headers, None if it is not sampled.
    """

    fixed: Mapping[str, Handler]
    find_other: Find = lambda _: None
    admit: Admit = admit_anyone
    begin_trace: BeginTrace | None = None

    def find(self, path: str) -> Handler | None:
        """Return the handler for a POST to a path; None: the route is not hot."""
        return self.fixed.get(path) or self.find_other(path)


def call_handler(handler: Handler, exchange: Exchange) -> None:
    """Call a handler; an exception is logged as a defect, and the reply is an error."""
    try:
        handler(exchange)
    except Exception as error:  # noqa: BLE001 - the connection waits for a reply, whatever failed
        reply_failure(exchange, error)


def reply_failure(exchange: Exchange, error: Exception) -> None:
    """Reply with an error; an unexpected exception is logged as a defect."""
    exchange.request_id = exchange.request_id or new_request_id()
    with log_request(exchange.request_id):
        if not isinstance(error, SkewlessError):
            trace_id = exchange.trace.trace_id if exchange.trace else None
            error = defect_error(error, exchange.path, **({"trace_id": trace_id} if trace_id else {}))
        exchange.reply_error(error)


async def run_handler(routes: HotRoutes, handler: Handler, request: Request) -> Response:
    """Return the reply of a handler to a request that came through the web framework.

    Raises:
        SkewlessError: the request is not admitted; its body was not read.
    """
    caller = routes.admit(request.scope["headers"], request.scope.get("state", {}).get("certificate"))
    future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def send(status: int, body: bytes, headers: Sequence[Header]) -> None:
        # The task that waits for the reply may have been cancelled.
        if not future.done():
            response = Response(body, status)
            response.raw_headers.extend(headers)
            future.set_result(response)

    exchange = Exchange(
        method=request.method,
        path=request.url.path,
        query=request.scope["query_string"],
        headers=request.scope["headers"],
        body=await request.body(),
        caller=caller,
        send=send,
        trace=None if routes.begin_trace is None else routes.begin_trace(request.scope["headers"]),
        request_id=request.scope.get("state", {}).get("request_id", b""),
    )
    call_handler(handler, exchange)
    return await future


class HotCycle(Exchange):
    """A request on the fast path, or a rejected request, with the attributes that uvicorn reads from a request's cycle.

    A rejected request is replied to as soon as it is its turn, and its body is discarded.

    Args:
        send_reply: sends the reply to this request.

    Attributes:
        parts: of the body, until the request is handled.
    """

    method = "POST"
    message_event = SimpleNamespace(set=lambda: None)  # uvicorn sets it on new data; here nothing waits for it
    is_started = False
    complete = False
    disconnected = False
    expects_continue = False
    is_handled = False
    is_rejected = False
    response_complete = False
    last_reply_at = 0.0
    waited_s = 0.0
    trace: Trace | None = None
    request_id = b""
    caller = ANYONE
    body = b""

    def __init__(
        self,
        handler: Handler,
        path: str,
        query: bytes,
        headers: Sequence[Header],
        send_reply: SendReply,
        *,
        keep_alive: bool,
    ) -> None:
        self.handler = handler
        self.path = path
        self.query = query
        self.headers = headers
        self.keep_alive = keep_alive
        self.parts: list[bytes] = []
        self._send_reply = send_reply

    def send(self, status: int, body: bytes, headers: Sequence[Header]) -> None:
        """Send status, body and headers."""
        self._send_reply(self, status, body, headers)


SendReply = Callable[[HotCycle, int, bytes, Sequence[Header]], None]


class ReplyHead:
    """The head of nearly all replies, encoded once per second."""

    def __init__(self) -> None:
        self._default: Sequence[Header] = ()
        self._head = b""

    def with_defaults(self, defaults: Sequence[Header]) -> bytes:
        """Return the head with the server's default headers, which change every second with the date."""
        # uvicorn makes a new list each second, so identity is enough.
        if defaults is not self._default:
            self._default, self._head = defaults, encode_head(http.HTTPStatus.OK, (*defaults, *JSON))
        return self._head


def encode_head(status: int, headers: Iterable[Header]) -> bytes:
    """Return the status line of a reply and its headers, except for those about its length."""
    return STATUS_LINE[status] + b"".join([b"%b: %b\r\n" % header for header in headers])


def error_handler(error: SkewlessError, status: int | None = None) -> Handler:
    """Return a handler that replies with an error."""
    return lambda exchange: exchange.reply_error(error, status)
