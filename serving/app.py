"""The HTTP face of the server: it only translates."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from skewless.contract.clock import Clock, SystemClock
from skewless.contract.errors import AccessError, RequestError, SkewlessError
from skewless.serving.access.gate import Access, Headers, OpenAccess
from skewless.serving.events import Events
from skewless.serving.http.event_routes import add_events
from skewless.serving.http.feedback_routes import Feedback, add_feedback
from skewless.serving.http.hot_routes import HotRoutes, answer
from skewless.serving.http.middleware import AccessMiddleware, ErrorMiddleware, HeadMiddleware
from skewless.serving.http.model_routes import add_models
from skewless.serving.http.openapi import ERRORS, describe_api, describe_example, operation_id
from skewless.serving.http.predict_route import PREDICT_BODY, PredictReply, PredictRoute
from skewless.serving.http.reply import error_json, http_status, json_response, retry_after
from skewless.serving.metrics.exposition import whole_server
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.oip.infer_route import InferRoute
from skewless.serving.oip.models import OipModels
from skewless.serving.oip.routes import oip_router
from skewless.serving.peer_workers import PeerWorkers
from skewless.serving.prediction.predictor import Predictor

_BEAT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What the routes work with; the application owns none of it.

    Args:
        reload_seconds: how often aliases are looked at.
        deadline_s: time limit of requests that set none, seconds; 0: none.
        ready: returns the reasons for not being ready; none: ready.
        beat: says that the process runs, about once a second; it may wait for the disk.
        events: takes events; None: they are refused.
        feedback: takes outcomes of predictions; None: they are refused.
        peers: the other workers; None: there are none, or this is the way in that they use.
        access: who may ask.
        local: whether only this machine can reach the server.
        body_bytes: longest body, also after it is unpacked.
        shown: the models as the Open Inference Protocol shows them.
    """

    models: ModelTable
    predictor: Predictor
    metrics: Metrics
    clock: Clock = field(default_factory=SystemClock)
    reload_seconds: float
    deadline_s: float = 0.0
    ready: Callable[[], dict[str, str]] = field(default=dict)
    beat: Callable[[], None] | None = None
    events: Events | None = None
    feedback: Feedback | None = None
    peers: PeerWorkers | None = None
    access: Access = field(default_factory=OpenAccess)
    local: bool = True
    body_bytes: int = 8_388_608
    shown: OipModels = field(default_factory=OipModels)


def hot_routes(serving: Serving) -> HotRoutes:
    """Return what is answered without the application."""
    predict = PredictRoute(
        models=serving.models,
        predictor=serving.predictor,
        access=serving.access,
        metrics=serving.metrics,
        clock=serving.clock,
        deadline_s=serving.deadline_s,
    )
    infer = InferRoute(
        models=serving.models,
        shown=serving.shown,
        predictor=serving.predictor,
        access=serving.access,
        metrics=serving.metrics,
        clock=serving.clock,
        body_bytes=serving.body_bytes,
        deadline_s=serving.deadline_s,
    )
    return HotRoutes({"/predict": predict.handle}, [infer.find], partial(_admit, serving))


def _admit(serving: Serving, headers: Headers) -> AccessError | None:
    """Return why who asks may not predict; who may is counted."""
    try:
        serving.access.allow(headers, "predict")
    except AccessError as error:
        serving.metrics.requests("unknown", "", error.kind).inc()
        return error
    return None


def create_app(serving: Serving, routes: HotRoutes | None = None) -> FastAPI:
    """Return the application; its lifespan watches the aliases."""
    routes = routes or hot_routes(serving)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        describe_example(app, lambda: next(iter(serving.models.all()), None))
        watcher = asyncio.create_task(_watch(serving))
        yield
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher

    app = FastAPI(
        title="skewless",
        lifespan=lifespan,
        responses=dict(ERRORS),
        generate_unique_id_function=operation_id,
        redirect_slashes=False,  # to an address made of what the client says in `Host`
    )
    _add_predict(app, routes)
    _add_health(app, serving)
    add_models(
        app,
        models=serving.models,
        peers=serving.peers,
        metrics=serving.metrics,
        clock=serving.clock,
    )
    protocol = oip_router(
        routes=routes,
        models=serving.models,
        shown=serving.shown,
        metrics=serving.metrics,
        ready=serving.ready,
        peers=serving.peers,
    )
    app.include_router(protocol)
    add_events(app, serving.events)
    add_feedback(app, serving.feedback)
    app.add_exception_handler(SkewlessError, _on_error)
    app.add_exception_handler(HTTPException, _on_refused)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(AccessMiddleware, access=serving.access, local=serving.local)
    app.add_middleware(ErrorMiddleware)
    describe_api(app)
    return app


async def _watch(serving: Serving) -> None:
    beat_at = 0.0
    while True:
        if serving.beat is not None and time.monotonic() > beat_at:
            beat_at = time.monotonic() + _BEAT_SECONDS
            await asyncio.to_thread(serving.beat)
        await asyncio.sleep(serving.reload_seconds)
        for name in await serving.models.refresh():
            serving.metrics.reloads(name).inc()


def _add_predict(app: FastAPI, routes: HotRoutes) -> None:
    replies: dict[int | str, dict[str, Any]] = {200: {"model": PredictReply}}

    @app.post("/predict", summary="Predict from entity ids", openapi_extra=PREDICT_BODY.described, responses=replies)
    async def predict(request: Request) -> Response:
        return await answer(routes, routes.at("/predict"), request)


def _add_health(app: FastAPI, serving: Serving) -> None:
    @app.get("/health/live", summary="Say whether the process answers")
    async def live() -> Response:
        return json_response({"live": True})

    @app.get("/health/ready", summary="Say whether predictions are answered, or why not")
    async def ready() -> Response:
        reasons = serving.ready()
        return json_response({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    @app.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        text = await whole_server(serving.metrics, serving.peers)
        return Response(text, media_type="text/plain; version=0.0.4")


async def _on_refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    route = f"{request.method} {request.url.path}"
    refusal = RequestError(f"route {route!r}", str(error.detail).lower(), fix="GET /docs lists the routes")
    return json_response(error_json(refusal, request.url.path), error.status_code, dict(error.headers or {}))


async def _on_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, SkewlessError):
        raise error
    return json_response(error_json(error, request.url.path), http_status(error), retry_after(error))
