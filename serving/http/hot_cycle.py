"""State of one request on the fast path, and the encoding of its reply's head."""

from __future__ import annotations

import http
from collections.abc import Iterable, Sequence
from types import SimpleNamespace

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from skewless.contract.errors import SkewlessError
from skewless.serving.http.hot_routes import JSON, Handler, Header


class HotCycle:
    """A request on the fast path, or a rejected request, with the attributes that uvicorn reads from a request's cycle.

    A rejected request is replied to as soon as it is its turn, and its body is discarded.
    """

    message_event = SimpleNamespace(set=lambda: None)  # uvicorn sets it on new data; here nothing waits for it
    is_started = False
    complete = False
    disconnected = False
    expects_continue = False
    is_handled = False
    is_rejected = False
    response_complete = False
    last_reply_at = 0.0

    def __init__(self, handler: Handler, path: str, query: bytes, headers: list[Header], *, keep_alive: bool) -> None:
        self.handler = handler
        self.path = path
        self.query = query
        self.headers = headers
        self.keep_alive = keep_alive
        self.body: list[bytes] = []


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
