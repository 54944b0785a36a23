"""The key check of every route that the application answers."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from skewless.contract.errors import AccessError
from skewless.serving.access.gate import Access
from skewless.serving.access.rules import scope_of
from skewless.serving.http.defects import send_error


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
