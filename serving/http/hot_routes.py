"""The routes that are answered before any framework is asked, what they get, and the way to them from a framework."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from fastapi import Request, Response

from skewless.contract.errors import SkewlessError
from skewless.serving.http.middleware import defect
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
Find = Callable[[str], Handler | None]
Admit = Callable[[Sequence[Header]], SkewlessError | None]


class HotRoutes:
    """Finds the handler of a path; all hot routes are POST.

    Args:
        fixed: handlers by path.
        others: finds those whose path holds a name.
        admit: says by a request's headers why it is refused, before its body is read; None: everybody is let in.
    """

    def __init__(self, fixed: dict[str, Handler], others: Sequence[Find] = (), admit: Admit | None = None) -> None:
        self._fixed = fixed
        self._others = others
        self.admit = admit or _admit_all

    def at(self, path: str) -> Handler:
        """Return the handler of a hot route."""
        return self._fixed[path]

    def find(self, path: str) -> Handler | None:
        """Return what handles a POST to a path; None: it is no hot route."""
        handler = self._fixed.get(path)
        if handler is not None:
            return handler
        for find in self._others:
            handler = find(path)
            if handler is not None:
                return handler
        return None


def _admit_all(_: Sequence[Header]) -> None:
    """Let a request in."""


def handled(handler: Handler, exchange: Exchange) -> None:
    """Let a handler deal with a request; a defect in it is logged, and answered as one."""
    try:
        handler(exchange)
    except Exception as error:  # noqa: BLE001 - the connection waits for a reply, whatever went wrong
        failed(exchange, error)


def failed(exchange: Exchange, error: Exception) -> None:
    """Reply with an error; what is no error of ours is logged, it is a defect."""
    exchange.refuse(error if isinstance(error, SkewlessError) else defect(error, exchange.path))


async def answer(routes: HotRoutes, handler: Handler, request: Request) -> Response:
    """Return what a handler replies to a request that came through the framework.

    Raises:
        SkewlessError: the request is not admitted; its body was not read.
    """
    refusal = routes.admit(request.scope["headers"])
    if refusal is not None:
        raise refusal
    waiting: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def send(status: int, body: bytes, headers: Sequence[Header]) -> None:
        if not waiting.done():
            response = Response(body, status)
            response.raw_headers.extend(headers)
            waiting.set_result(response)

    exchange = Exchange(
        method=request.method,
        path=request.url.path,
        query=request.scope["query_string"],
        headers=request.scope["headers"],
        body=await request.body(),
        send=send,
    )
    handled(handler, exchange)
    return await waiting
