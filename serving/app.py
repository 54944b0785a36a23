"""The HTTP application: routes, middleware and background tasks around the scoring core."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from skewless.contract.clock import Clock, SystemClock
from skewless.contract.errors import AccessError, RequestError, SkewlessError
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.serving.access.caller import Caller
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.access.gate import Access, Headers, OpenAccess, follow_keys
from skewless.serving.events import EventForwarder
from skewless.serving.http.event_routes import add_event_routes
from skewless.serving.http.feedback_routes import Feedback, add_feedback_route
from skewless.serving.http.hot_routes import Handler, HotRoutes, run_handler
from skewless.serving.http.middleware import (
    identify_requests,
    log_refusal,
    pass_head_as_get,
    reply_to_defects,
    require_keys,
)
from skewless.serving.http.model_routes import add_model_routes
from skewless.serving.http.openapi import ERRORS, add_docs_page, describe_api, operation_id
from skewless.serving.http.predict_route import PREDICT_BODY, PredictReply, PredictRoute
from skewless.serving.http.reply import error_json, error_response, http_status, is_oip_path, json_response
from skewless.serving.metrics.metrics import Metrics, render_all_workers
from skewless.serving.metrics.telemetry import BeginTrace
from skewless.serving.models.table import ModelTable
from skewless.serving.peer_workers import PeerWorkers
from skewless.serving.prediction.predictor import Predictor

_log = EventLogger()
_HEARTBEAT_SECONDS = 1.0
# FastAPI's own spans and logs have the values of requests, and its metrics would be a second definition of ours.
_NO_TELEMETRY: Any = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


@dataclass(frozen=True, kw_only=True)
class ServingContext:
    """Everything that the routes need; the application owns none of it.

    Args:
        reload_seconds: interval in which aliases are checked.
        deadline_s: timeout of requests that set none, seconds; 0: none.
        ready: returns the reasons why the server is not ready; empty: it is ready.
        details: returns problems that do not make the server unready.
        heartbeat: records that the process runs, about once per second; may wait for the disk.
        peers: the other workers; None: a single worker, or the listener that peers use.
        access: authenticates requests.
        local: whether only this machine can reach the server.
        body_bytes: maximum length of a body, also after decompression.
        platform: routes of the platform whose container the server is in; None: none.
        added: routes of plug-ins, by the names of their entry points.
        begin_trace: see ``HotRoutes``.
    """

    models: ModelTable
    predictor: Predictor
    metrics: Metrics
    events: EventForwarder
    feedback: Feedback
    clock: Clock = field(default_factory=SystemClock)
    reload_seconds: float
    deadline_s: float = 0.0
    ready: Callable[[], dict[str, str]] = field(default=dict)
    details: Callable[[], dict[str, str]] = field(default=dict)
    heartbeat: Callable[[], None] | None = None
    peers: PeerWorkers | None = None
    access: Access = field(default_factory=OpenAccess)
    local: bool = True
    body_bytes: int = 8_388_608
    platform: AddedRoutes | None = None
    added: Mapping[str, AddedRoutes] = field(default_factory=dict)
    begin_trace: BeginTrace | None = None

    @property
    def all_added(self) -> list[AddedRoutes]:
        """The routes of the platform, and those of plug-ins."""
        return [*([] if self.platform is None else [self.platform]), *self.added.values()]

    @property
    def route_arguments(self) -> dict[str, Any]:
        """The arguments of every route that predicts."""
        return {
            "models": self.models,
            "predictor": self.predictor,
            "metrics": self.metrics,
            "clock": self.clock,
            "deadline_s": self.deadline_s,
        }


class AddedRoutes(Protocol):
    """Routes that a plug-in adds to HTTP: a platform, or an entry point of ``skewless.routes``, which opens them.

    All listeners of a server share them. Those of a platform are in front of routes of the same path. The core decides
    which scope a path needs (``serving/access/needs.py``): one that it does not know needs ``admin`` to write.
    """

    @property
    def paths(self) -> frozenset[str]:
        """The paths for which the server asks for no API key: the handlers of predictions there authenticate."""
        ...

    def hot_routes(self, serving: ServingContext) -> HotRoutes:
        """Return the handlers of predictions, which are called in the event loop without the application."""
        ...

    def add_to(self, app: FastAPI, routes: HotRoutes, serving: ServingContext) -> None:
        """Add all routes to the application.

        Args:
            routes: of the server, with those of ``hot_routes``.
        """
        ...


def hot_routes(serving: ServingContext) -> HotRoutes:
    """Return the routes that are handled without the application."""
    fixed: dict[str, Handler] = {"/predict": PredictRoute(**serving.route_arguments).handle}
    others = []
    for added in serving.all_added:
        routes = added.hot_routes(serving)
        fixed |= routes.fixed
        others.append(routes.find_other)

    def find(path: str) -> Handler | None:
        for other in others:
            if (handler := other(path)) is not None:
                return handler
        return None

    return HotRoutes(fixed, find, partial(admit, serving), serving.begin_trace)


def admit(serving: ServingContext, headers: Headers, certificate: PeerCertificate | None) -> Caller:
    """Return the caller of a prediction request, which counts against its rate.

    Raises:
        AccessError: the caller may not predict.
    """
    try:
        return serving.access.allow(headers, "predict", certificate)
    except AccessError as error:
        serving.metrics.requests("unknown", "", error.kind).inc()
        raise


def create_app(serving: ServingContext, routes: HotRoutes | None = None) -> FastAPI:
    """Return the application; its lifespan runs the tasks that check the aliases and the API keys."""
    routes = routes or hot_routes(serving)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watchers = [asyncio.create_task(_watch_aliases(serving)), asyncio.create_task(follow_keys(serving.access))]
        yield
        for watcher in watchers:
            watcher.cancel()
        await asyncio.wait(watchers)

    app = FastAPI(
        title="skewless",
        lifespan=lifespan,
        responses=dict(ERRORS),
        generate_unique_id_function=operation_id,
        docs_url=None,  # FastAPI's pages load their scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,  # a redirect would go to the address in the client's `Host` header
        telemetry=_NO_TELEMETRY,
    )
    add_docs_page(app)
    if serving.platform is not None:
        serving.platform.add_to(app, routes, serving)
    _add_predict(app, routes)
    _add_health(app, serving)
    add_model_routes(
        app,
        models=serving.models,
        predictor=serving.predictor,
        peers=serving.peers,
        metrics=serving.metrics,
        clock=serving.clock,
    )
    for added in serving.added.values():
        added.add_to(app, routes, serving)
    add_event_routes(app, serving.events)
    add_feedback_route(app, serving.feedback)
    app.add_exception_handler(SkewlessError, cast("Any", _reply_error))
    app.add_exception_handler(HTTPException, cast("Any", partial(_reply_http_error, serving)))
    # The last one is the outermost: the errors of the others also get the format of the API.
    app.add_middleware(pass_head_as_get)
    exempt = frozenset[str]().union(*(added.paths for added in serving.all_added))
    app.add_middleware(require_keys, access=serving.access, local=serving.local, exempt=exempt)
    app.add_middleware(reply_to_defects)
    app.add_middleware(identify_requests)
    describe_api(app, lambda: next(iter(serving.models.all()), None))
    return app


async def _watch_aliases(serving: ServingContext) -> None:
    heartbeat_at = 0.0
    while True:
        if serving.heartbeat is not None and time.monotonic() > heartbeat_at:
            heartbeat_at = time.monotonic() + _HEARTBEAT_SECONDS
            await asyncio.to_thread(serving.heartbeat)
        await asyncio.sleep(serving.reload_seconds)
        try:
            for name in await serving.models.refresh():
                serving.metrics.reloads(name).inc()
            await asyncio.to_thread(serving.events.refresh)
        except Exception as error:  # noqa: BLE001 - a defect must not end the task: the server would never reload again
            _log.error("reload_failed", exc_info=error)


def _add_predict(app: FastAPI, routes: HotRoutes) -> None:
    replies: dict[int | str, dict[str, Any]] = {200: {"model": PredictReply}}

    @app.post(
        "/predict", summary="Predict from entity keys", openapi_extra=PREDICT_BODY.openapi_extra, responses=replies
    )
    async def predict(request: Request) -> Response:
        return await run_handler(routes, routes.fixed["/predict"], request)


def _add_health(app: FastAPI, serving: ServingContext) -> None:
    @app.get("/health/live", summary="Report that the process responds")
    async def live() -> Response:
        return json_response({"live": True})

    @app.get("/health/ready", summary="Report whether the server is ready, or why not")
    async def ready() -> Response:
        reasons = serving.ready()
        body = {"ready": not reasons, "reasons": reasons, "details": serving.details()}
        return json_response(body, 503 if reasons else 200)

    @app.get("/metrics", summary="Return metrics in Prometheus' text format", response_class=PlainTextResponse)
    async def metrics() -> Response:
        text = await render_all_workers(serving.metrics, serving.peers)
        return Response(text, media_type="text/plain; version=0.0.4")


async def _reply_http_error(serving: ServingContext, request: Request, error: HTTPException) -> Response:
    route = f"{request.method} {request.url.path}"
    is_missing = is_oip_path(request.url.path) and "oip" not in serving.added
    fix = "pip install 'skewless[oip]' for the server" if is_missing else "GET /docs lists the routes"
    error_reply = RequestError(f"route {route!r}", str(error.detail).lower(), fix=fix)
    return json_response(error_json(error_reply, request.url.path), error.status_code, dict(error.headers or {}))


async def _reply_error(request: Request, error: SkewlessError) -> Response:
    log_refusal(error, request.method, request.url.path, http_status(error), request.state.request_id)
    return error_response(error, request.url.path)
