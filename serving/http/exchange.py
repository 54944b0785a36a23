"""One HTTP request and its one reply, whatever server carries them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from skewless.contract.errors import SkewlessError
from skewless.serving.http.reply import error_json, http_status, retry_after

Header = tuple[bytes, bytes]
Send = Callable[[int, bytes, Sequence[Header]], None]
JSON: tuple[Header, ...] = ((b"content-type", b"application/json"),)


class Exchange:
    """What a handler of a hot route gets: it reads the request, and replies once, now or from a callback.

    Args:
        method: in capitals.
        path: without its query, percent signs decoded.
        query: behind the question mark, as it came.
        headers: names in lower case, in their order.
        send: takes status, body and headers; content-length is the server's.

    Attributes:
        waited: seconds for which it waited for its turn since it was complete.
    """

    __slots__ = ("_send", "body", "headers", "method", "path", "query", "waited")

    def __init__(
        self, *, method: str, path: str, query: bytes, headers: Sequence[Header], body: bytes, send: Send
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self._send = send
        self.waited = 0.0

    def reply(self, status: int, body: bytes, headers: Sequence[Header] = JSON) -> None:
        """Send the reply."""
        self._send(status, body, headers)

    def reply_json(self, status: int, body: Any, headers: Sequence[Header] = ()) -> None:  # noqa: ANN401 - JSON
        """Send plain values as JSON."""
        self._send(status, orjson.dumps(body), (*JSON, *headers))

    def refuse(self, error: SkewlessError, status: int | None = None) -> None:
        """Send an error in the shape of the path; None: with the status of its kind."""
        headers = [(name.lower().encode(), value.encode()) for name, value in retry_after(error).items()]
        self.reply_json(status or http_status(error), error_json(error, self.path), headers)


Handler = Callable[[Exchange], None]
