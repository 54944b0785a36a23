"""Middleware of the application: HEAD requests, authentication, and error replies for defects."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skewless.contract.errors import AccessError, SkewlessError
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.platform.telemetry.request_ids import HEADER, find_request_id, log_request, new_request_id
from skewless.serving.access.caller import Caller
from skewless.serving.access.gate import Access
from skewless.serving.access.needs import model_of, scope_of
from skewless.serving.http.reply import error_response

_log = EventLogger()


def pass_head_as_get(app: ASGIApp) -> ASGIApp:
    """Return an application that gets HEAD as GET; the server knows the original method and omits the body."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return handle


def identify_requests(app: ASGIApp) -> ASGIApp:
    """Return an application that gets requests with an id: the caller's, or a new one, which only an error returns."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        given = find_request_id(scope["headers"])
        request_id = given or new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start" and (given or message["status"] >= HTTPStatus.BAD_REQUEST):
                others = [header for header in message.get("headers", ()) if header[0] != HEADER]
                message = {**message, "headers": [*others, (HEADER, request_id)]}
            await send(message)

        with log_request(request_id):
            await app(scope, receive, send_with_id)

    return handle


def require_keys(app: ASGIApp, access: Access, *, local: bool, exempt: Collection[str] = ()) -> ASGIApp:
    """Return an application that gets authenticated requests, with the caller in ``scope["state"]["caller"]``.

    The caller may use the model in the path of the request; models in bodies are left to the routes. The client's
    certificate is in ``scope["state"]["certificate"]``, if it has shown one. A rejection has the format of all errors.
    The request's body is not read before.

    Args:
        local: whether only this machine can reach the server; then metrics and docs require no key.
        exempt: paths of health checks, which need no key, and of predictions, whose handlers authenticate.
    """

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in exempt:
            try:
                _admit(scope, access, local=local)
            except AccessError as error:
                await error_response(error, scope["path"])(scope, receive, send)
                return
        await app(scope, receive, send)

    return handle


def _admit(scope: Scope, access: Access, *, local: bool) -> None:
    """Admit a request to the application, and check the model that its path names."""
    method, path = scope["method"], scope["path"]
    state = scope.setdefault("state", {})
    need = scope_of(method, path)
    match need:
        case "nothing" | "predict":
            return  # prediction handlers authenticate, since requests on the fast path bypass this middleware
        case "page" if local:
            return
        case "page" | "key":
            needed = None
        case needed:
            pass
    caller = state["caller"] = access.allow(scope["headers"], needed, state.get("certificate"))
    if need == "page":
        caller.require_all_models()
    elif (model := model_of("GET" if method == "HEAD" else method, path)) is not None:
        caller.choose_model(model)
    if need == "admin":
        _log.info("admin_request", caller=repr(caller), method=method, path=path)


def caller_of(request: Request) -> Caller:
    """Return the caller of a request that ``require_keys`` has admitted."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


def reply_to_defects(app: ASGIApp) -> ASGIApp:
    """Return an application that replies with a JSON error if it raises; uvicorn would reply in plain text.

    Once its reply has started, an error can only be raised.
    """

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        has_begun = False

        async def send_and_mark(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await app(scope, receive, send_and_mark)
        except Exception as error:
            if has_begun:
                raise
            await error_response(defect_error(error, scope["path"]), scope["path"])(scope, receive, send)

    return handle


def log_refusal(error: SkewlessError, method: str, path: str, status: int, request_id: bytes) -> None:
    """Log the reply of an error at level debug: the caller, not the log, learns about an invalid request.

    A defect was logged where it was found.
    """
    if error.kind == SkewlessError.kind or not _log.is_shown("debug"):
        return
    text = request_id.decode("ascii")
    _log.debug("request_refused", method=method, path=path, status=status, error=error.sentence(), request_id=text)


def defect_error(error: Exception, path: str, **fields: str) -> SkewlessError:
    """Log an unexpected exception with some fields, and return an error without details for the client."""
    _log.error("request_failed", path=path, **fields, exc_info=error)
    return SkewlessError("the server", "failed on this request", fix="see its log")
