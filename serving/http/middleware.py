"""What every request to the application passes: HEAD becomes GET, keys are asked for, defects are told as errors."""

from __future__ import annotations

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skewless.contract.errors import AccessError, SkewlessError
from skewless.serving.access.gate import Access
from skewless.serving.access.rules import scope_of
from skewless.serving.http.reply import error_json, http_status, retry_after

_log = structlog.get_logger()


class HeadMiddleware:
    """Lets the application answer HEAD as GET; the server, which sees the method as it came, leaves out the body.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


class AccessMiddleware:
    """Asks who it is before the application sees a request; the caller's name is in ``scope["state"]["caller"]``.

    A refusal has the shape of every other error. A request's body is not read before.

    Args:
        app: the application.
        access: who may ask.
        local: whether the server can be reached from this machine alone; then metrics and docs need no key.
    """

    def __init__(self, app: ASGIApp, access: Access, *, local: bool) -> None:
        self._app = app
        self._access = access
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the application answer it."""
        if scope["type"] == "http":
            try:
                self._admit(scope)
            except AccessError as error:
                await send_error(error, scope["path"], send)
                return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        match scope_of(scope["method"], scope["path"]):
            case "nothing" | "predict":
                return  # predictions ask for themselves, whatever way they come
            case "page" if self._local:
                return
            case "page" | "key":
                needed = None
            case needed:
                pass
        scope.setdefault("state", {})["caller"] = self._access.allow(scope["headers"], needed)


class ErrorMiddleware:
    """Answers what the application failed on; uvicorn would answer in plain text.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer; where it has begun, nothing can be told any more."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def tell(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, tell)
        except Exception as error:
            if begun:
                raise
            await send_error(defect(error, scope["path"]), scope["path"], send)


def defect(error: Exception, path: str) -> SkewlessError:
    """Log what went wrong with a request, and return what its sender is told."""
    _log.error("request_failed", path=path, exc_info=error)
    return SkewlessError("the server", "failed on this request", fix="see its log")


async def send_error(error: SkewlessError, path: str, send: Send) -> None:
    """Send an error in the shape of a path, as a whole reply."""
    body = orjson.dumps(error_json(error, path))
    told = {"Content-Type": "application/json", "Content-Length": str(len(body)), **retry_after(error)}
    headers = [(name.lower().encode(), value.encode()) for name, value in told.items()]
    await send({"type": "http.response.start", "status": http_status(error), "headers": headers})
    await send({"type": "http.response.body", "body": body})
