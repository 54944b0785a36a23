"""Middleware of the application: HEAD requests, authentication, and error replies for defects."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skewless.contract.errors import AccessError, SkewlessError
from skewless.infra.telemetry.logger import EventLogger
from skewless.serving.access.gate import Access, scope_of
from skewless.serving.http.reply import error_response

_log = EventLogger()


class HeadMiddleware:
    """Passes HEAD to the application as GET; the server knows the original method and omits the body.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


class AccessMiddleware:
    """Authenticates a request before the application sees it; puts the caller's name in ``scope["state"]["caller"]``.

    A rejection has the format of all errors. The request's body is not read before.

    Args:
        app: the application.
        access: authenticates requests.
        local: whether only this machine can reach the server; then metrics and docs require no key.
    """

    def __init__(self, app: ASGIApp, access: Access, *, local: bool) -> None:
        self._app = app
        self._access = access
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request, or pass it to the application."""
        if scope["type"] == "http":
            try:
                self._admit(scope)
            except AccessError as error:
                await error_response(error, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        match scope_of(scope["method"], scope["path"]):
            case "nothing" | "predict":
                return  # prediction handlers authenticate, since requests on the fast path bypass this middleware
            case "page" if self._local:
                return
            case "page" | "key":
                needed = None
            case needed:
                pass
        scope.setdefault("state", {})["caller"] = self._access.allow(scope["headers"], needed)


class ErrorMiddleware:
    """Replies with a JSON error if the application raises; uvicorn would reply in plain text.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application; once its reply has started, an error can only be raised."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_and_mark(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_mark)
        except Exception as error:
            if has_begun:
                raise
            await error_response(defect_error(error, scope["path"]), scope["path"])(scope, receive, send)


def defect_error(error: Exception, path: str) -> SkewlessError:
    """Log an unexpected exception, and return an error without details for the client."""
    _log.error("request_failed", path=path, exc_info=error)
    return SkewlessError("the server", "failed on this request", fix="see its log")
