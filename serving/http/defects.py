"""The last resort of the application: a defect is logged, and answered as one in the shape of the path."""

from __future__ import annotations

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skewless.contract.errors import SkewlessError
from skewless.serving.http.reply import error_json, http_status, retry_after

_log = structlog.get_logger()


class DefectMiddleware:
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
