"""The application of the control room: its routes, its headers, and how a page becomes a reply."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from urllib.parse import parse_qsl, urlsplit

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Lifespan

from skewless.contract.clock import SystemClock
from skewless.contract.errors import (
    AccessError,
    BusyError,
    ConflictError,
    RequestError,
    ScopeError,
    SkewlessError,
    StoreError,
)
from skewless.contract.plain_record import plain_value
from skewless.infra.platform.access.audit import Actor
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless_control_room.access import SignIn, Viewer
from skewless_control_room.actions import Action
from skewless_control_room.page import Page, Query
from skewless_control_room.pages import ACTIONS, all_pages
from skewless_control_room.readers import Readers
from skewless_control_room.render import render, to_url

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_FORM_BYTES = 65_536
_MOST_FIELDS = 100
_STATUS: Sequence[tuple[type[SkewlessError], int]] = (
    (ScopeError, 403),
    (AccessError, 401),
    (RequestError, 404),
    (ConflictError, 409),
    (BusyError, 503),
    (StoreError, 503),
)
_CLOCK = SystemClock()
_MOST_DONE = 500
_log = EventLogger()
Answer = Callable[[Request, Viewer], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class ControlRoom:
    """The pages of a project.

    Args:
        name: of the project, in the titles.
        readers: read the pages.
        sign_in: knows who sends a request.
        hosts: allowed values of the header ``Host``, without the port; empty: any. A page of another origin whose name
            points to this machine could otherwise read the pages.
        is_saved: whether the pages become files: without scripts and forms.
        pages: in the order of the menu.
        seal: the key that marks our own texts in addresses.
    """

    name: str
    readers: Readers
    sign_in: SignIn
    hosts: frozenset[str] = frozenset()
    is_saved: bool = False
    pages: Sequence[Page] = field(default_factory=all_pages)
    seal: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def app(self, further: Sequence[Route] = (), lifespan: Lifespan[Starlette] | None = None) -> Starlette:
        """Return the application.

        Args:
            further: routes, such as those of the sign-in.
            lifespan: runs while the application does.
        """
        routes = [*further, Route("/static/{name}", _static), Route("/health/live", _live)]
        for page in self.pages:
            as_json = f"{page.path}.json" if page.path != "/" else "/index.json"
            routes.append(Route(as_json, self._guard(self._show(page, as_json=True))))
            routes.append(Route(page.path, self._guard(self._show(page, as_json=False))))
        for action in ACTIONS:
            routes.append(Route(f"/actions/{action.name}", self._guard(self._confirm(action)), methods=["GET"]))
            routes.append(Route(f"/actions/{action.name}", self._guard(self._do(action)), methods=["POST"]))
        return Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: self._missing, 500: self._failed})

    def page(self, request: Request, template: str, title: str, viewer: Viewer | None, **values: object) -> Response:
        """Return an HTML reply."""
        shared: dict[str, object] = {
            "project_name": self.name,
            "title": title,
            "viewer": viewer,
            "is_saved": self.is_saved,
            "menu": [(page.menu, page.path) for page in self.pages if page.menu],
            "here": request.url.path,
            "url": _own_path(request),
            "searched": request.query_params.get("q", "")[:500],
            "done": self._read_done(request),
            "now": _CLOCK.now_us(),
            "took_ms": 0,
            "live_s": 0,
            "json_url": "",
        }
        status = values.pop("status", 200)
        return _reply(render(template, shared | values), "text/html; charset=utf-8", int(str(status)))

    def _read_done(self, request: Request) -> str:
        """Return what an action of this process has done, if the address says so; no text of anybody else."""
        text, seal = (request.query_params.get(name, "") for name in ("done", "seal"))
        return text if hmac.compare_digest(self._seal_of(text).encode(), seal.encode(errors="replace")) else ""

    def _seal_of(self, text: str) -> str:
        return hmac.new(self.seal, text.encode(errors="replace"), "sha256").hexdigest()

    def guard_open(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Return a handler of pages that need no sign-in."""

        async def handle(request: Request) -> Response:
            try:
                self._check_host(request)
                return await answer(request)
            except SkewlessError as error:
                return self._error(request, error)

        return handle

    def _guard(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def sign_in_first(request: Request) -> Response:
            viewer = request.state.viewer = self.sign_in.viewer(request)
            if viewer is None:
                return RedirectResponse(to_url("/sign-in", to=_own_path(request)), 303, HEADERS)
            return await answer(request, viewer)

        return self.guard_open(sign_in_first)

    def _check_host(self, request: Request) -> None:
        host = request.headers.get("host", "")
        if self.hosts and urlsplit(f"//{host}").hostname not in self.hosts:
            raise ScopeError("request", "names an unknown host", value=host, fix="use the URL that skewless ui prints")

    def _show(self, page: Page, *, as_json: bool) -> Answer:
        async def answer(request: Request, viewer: Viewer) -> Response:
            viewer.require("view")
            query = Query(path=dict(request.path_params), values=dict(request.query_params), models=viewer.models)
            started = time.perf_counter()
            data = await self.readers.run(lambda project: page.read(project, query))
            if as_json:
                return _reply(to_json(data), "application/json", 200)
            return self.page(
                request,
                page.template,
                page.question.format(**query.path),
                viewer,
                page=data,
                live_s=0 if self.is_saved else page.live_s,
                took_ms=round((time.perf_counter() - started) * 1e3),
                json_url="" if self.is_saved else _json_path(request, page),
                actions={action.name.replace("-", "_"): action for action in ACTIONS},
            )

        return answer

    def _confirm(self, action: Action) -> Answer:
        async def answer(request: Request, viewer: Viewer) -> Response:
            viewer.require(action.right)
            values = {name: request.query_params.get(name, "") for name in action.fields}
            viewer.require_model(values)
            sentences = await self.readers.run(lambda project: action.preview(project, values))
            return self.page(
                request,
                "confirm.html",
                f"{action.title}?",
                viewer,
                action=action,
                values=values,
                sentences=sentences,
                word=action.word.format(**values),
                command=action.command.format(**values, **{name: name.upper() for name in action.ask}),
                back=local_path(request.query_params.get("from", "/")),
            )

        return answer

    def _do(self, action: Action) -> Answer:
        async def answer(request: Request, viewer: Viewer) -> Response:
            form = await read_form(request)
            check_origin(request, viewer, form)
            viewer.require(action.right)
            values = {name: form.get(name, "") for name in (*action.fields, *action.ask)}
            viewer.require_model(values)
            if action.word and form.get("word") != action.word.format(**values):
                fix = f"type {action.word.format(**values)!r}"
                raise ConflictError(action.title, "is not confirmed", value=form.get("word"), fix=fix)
            back = local_path(form.get("from", "/"))
            actor = Actor(name=viewer.name, place=back)
            done = await self.readers.run(lambda project: action.run(project, values), actor)
            path, _, words = back.partition("?")
            kept = dict(parse_qsl(words)) | {"done": done[:_MOST_DONE], "seal": self._seal_of(done[:_MOST_DONE])}
            return RedirectResponse(f"{path}?{to_url('', **kept)[1:]}", 303, HEADERS)

        return answer

    async def _missing(self, request: Request, _: Exception) -> Response:
        error = RequestError("page", "does not exist", value=request.url.path, fix="open another page of the menu")
        return self._error(request, error)

    async def _failed(self, request: Request, failure: Exception) -> Response:
        _log.error("page_failed", path=request.url.path, error=f"{type(failure).__name__}: {failure}")
        fix = "report it, with the log of the control room"
        return self._error(request, SkewlessError("control room", "has a defect: the page failed", fix=fix))

    def _error(self, request: Request, error: SkewlessError) -> Response:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
        if request.url.path.endswith(".json"):
            return _reply(to_json({"error": error.as_dict()}), "application/json", status)
        viewer = getattr(request.state, "viewer", None)
        return self.page(request, "error.html", "This page has no answer", viewer, error=error, status=status)


def to_json(data: object) -> bytes:
    """Return data of a page as JSON; numbers that are not finite are null."""
    return orjson.dumps(plain_value(data), option=orjson.OPT_NON_STR_KEYS | orjson.OPT_INDENT_2, default=str)


def check_origin(request: Request, viewer: Viewer, form: Mapping[str, str]) -> None:
    """Check that a form was sent by one of our pages.

    Raises:
        ScopeError: it was not.
    """
    if not is_ours(request) or not hmac.compare_digest(form.get("token", "").encode(), viewer.token.encode()):
        raise ScopeError("form", "does not come from a page of this session", fix="open the page again and repeat it")


def is_ours(request: Request) -> bool:
    """Return whether a browser says that a form is of our origin."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
    is_same = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    return is_same and site == "same-origin"


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form, bounded in size and number.

    Raises:
        RequestError: it is too large, or not readable.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            raise RequestError("form", "is too large", value=len(body), fix=f"send at most {_FORM_BYTES:,} bytes")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError as error:
        raise RequestError("form", f"is not readable: {error}", fix="send it as a browser does") from error


def _own_path(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def local_path(text: str) -> str:
    """Return a path of this site; anything else is ``/``: a link must not lead to another site."""
    parts = urlsplit(text)
    is_local = not parts.scheme and not parts.netloc and text.startswith("/") and not text.startswith(("//", "/\\"))
    return text if is_local and text.isprintable() else "/"


def _json_path(request: Request, page: Page) -> str:
    path = "/index" if page.path == "/" else request.url.path
    return f"{path}.json" + (f"?{request.url.query}" if request.url.query else "")


def _reply(body: str | bytes, media_type: str, status: int) -> Response:
    return Response(body, status, HEADERS, media_type)


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    known = {item.name: item for item in files(__package__).joinpath("static").iterdir()}
    kind = next((kind for end, kind in _TYPES.items() if name.endswith(end)), None)
    if kind is None or name not in known:
        return _reply("not found", "text/plain", 404)
    reply = _reply(known[name].read_bytes(), kind, 200)
    reply.headers["cache-control"] = "max-age=3600"
    return reply


async def _live(_: Request) -> Response:
    return _reply("{}", "application/json", 200)
