"""The HTTP face of the predictor: it only translates."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from infra.served_model import ServedModel
from serving.event_routes import add_events
from serving.events import Events
from serving.metrics import Metrics
from serving.models import ModelTable
from serving.predictor import Predictions, Predictor
from serving.reply import error_json, http_status, predictions_json, retry_after
from skewless.errors import RequestError, SkewlessError
from skewless.status import count_statuses


class PredictRequest(BaseModel):
    """What ``POST /predict`` takes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"rows": [{"card_id": 7}]}]})

    model: str | None = Field(None, description="name of the model; may be left out where one is served")
    rows: list[dict[str, Any]] = Field(description="one or many objects of entity keys and request fields")
    features: bool = Field(default=False, description="also return feature values, their status and age")


class Prediction(BaseModel):
    """One row of a reply; values, statuses and ages only where ``features`` was asked for."""

    id: str
    score: float
    features: dict[str, float | None] | None = None
    views: dict[str, dict[str, Any]] | None = None


class PredictReply(BaseModel):
    """What ``POST /predict`` answers."""

    model: str
    version: str
    t: str = Field(description="the one time at which everything was evaluated, ISO 8601, UTC")
    t_us: int = Field(description="the same in microseconds since the epoch")
    log: str = Field(description="`required`: the log row is durable; `best_effort`: it is on its way")
    degraded: bool = Field(description="the online store did not answer and nulls were scored")
    predictions: list[Prediction]


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What the routes work with; the application owns none of it.

    Args:
        ready: returns the reasons for not being ready; none: ready.
        events: takes events; None: they are refused.
    """

    models: ModelTable
    predictor: Predictor
    metrics: Metrics
    reload_seconds: float
    ready: Callable[[], dict[str, str]] = field(default=dict)
    events: Events | None = None


def create_app(serving: Serving) -> FastAPI:
    """Return the application; its lifespan watches the aliases."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watcher = asyncio.create_task(_watch(serving))
        yield
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher

    app = FastAPI(title="skewless", lifespan=lifespan)
    _add_predict(app, serving)
    _add_health(app, serving)
    _add_models(app, serving)
    add_events(app, serving.events)
    app.add_exception_handler(SkewlessError, _on_error)
    app.add_exception_handler(HTTPException, _on_refused)
    return app


async def _watch(serving: Serving) -> None:
    while True:
        await asyncio.sleep(serving.reload_seconds)
        for name in await serving.models.refresh():
            serving.metrics.reloads.labels(name).inc()


def _add_predict(app: FastAPI, serving: Serving) -> None:
    schema = {"requestBody": {"content": {"application/json": {"schema": PredictRequest.model_json_schema()}}}}

    replies: dict[int | str, dict[str, Any]] = {200: {"model": PredictReply}}

    @app.post("/predict", summary="Predict from entity ids", openapi_extra=schema, responses=replies)
    async def predict(request: Request) -> Response:
        start = time.perf_counter()
        name = "unknown"
        try:
            body = _parse(await request.body())
            model = serving.models.get(body.get("model"))
            name = model.name
            answer = await serving.predictor.predict(model, body["rows"])
        except SkewlessError as error:
            serving.metrics.requests.labels(name, error.kind).inc()
            return _json(error_json(error), http_status(error), retry_after(error))
        _count(serving.metrics, answer, time.perf_counter() - start)
        return _json(predictions_json(answer, features=bool(body.get("features"))))


def _add_health(app: FastAPI, serving: Serving) -> None:
    @app.get("/health/live", summary="Say whether the process answers")
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/health/ready", summary="Say whether predictions are answered, or why not")
    async def ready() -> Response:
        reasons = serving.ready()
        return _json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    @app.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(serving.metrics.render(), media_type="text/plain; version=0.0.4")


def _add_models(app: FastAPI, serving: Serving) -> None:
    @app.get("/models", summary="List the models that are served")
    async def models() -> Response:
        return _json(
            {"models": [_describe(model) for model in serving.models.all()], "refused": serving.models.problems}
        )

    @app.get("/models/{name}", summary="Describe a model: version, plan, inputs, quality")
    async def model(name: str) -> Response:
        return _json(_describe(serving.models.get(name)))


def _describe(model: ServedModel) -> dict[str, Any]:
    plan, package = model.plan, model.package
    return {
        "model": model.name,
        "version": model.version,
        "digest": package.digest,
        "algorithm": package.spec.algorithm,
        "task": package.spec.task,
        "plan_hash": plan.hash,
        "runtime": {"id": model.certificate.runtime_id, "bit_equal": model.certificate.bit_equal},
        "inputs": {
            "keys": {column.name: column.dtype for column in plan.join_keys},
            "request": {column.name: column.dtype for column in plan.request},
        },
        "features": list(model.assembler.labels),
        "views": {view.name: view.hash for view in plan.all_views},
        "metrics": package.metrics,
        "log": package.spec.log,
    }


def _parse(body: bytes) -> dict[str, Any]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            "request body", f"is not JSON: {error}", fix="send valid JSON; NaN and Infinity are not, send null"
        ) from error
    if not isinstance(data, dict) or not isinstance(data.get("rows"), list):
        raise RequestError("request body", "has no list 'rows'", fix='send {"rows": [{...}]}')
    unknown = data.keys() - {"model", "rows", "features"}
    if unknown:
        raise RequestError("request body", "has an unknown field", value=min(unknown), fix="send model, rows, features")
    _check_type("model", data.get("model"), str, "the name of a model")
    _check_type("features", data.get("features"), bool, "true or false")
    return data


def _check_type(name: str, value: object, kind: type, wanted: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise RequestError(f"request field {name!r}", "has the wrong type", value=value, fix=f"send {wanted}")


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")


async def _on_refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    route = f"{request.method} {request.url.path}"
    refusal = RequestError(f"route {route!r}", str(error.detail).lower(), fix="GET /docs lists the routes")
    return _json(error_json(refusal), error.status_code, dict(error.headers or {}))


async def _on_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, SkewlessError):
        raise error
    return _json(error_json(error), http_status(error), retry_after(error))


def _count(metrics: Metrics, answer: Predictions, seconds: float) -> None:
    model = answer.model
    metrics.requests.labels(model.name, "degraded" if answer.degraded else "ok").inc()
    metrics.rows.labels(model.name, model.version).inc(len(answer.ids))
    metrics.seconds.observe(seconds)
    for view, status in answer.vectors.status.items():
        for label, count in count_statuses(status).items():
            metrics.reads.labels(view, label).inc(count)
        stale = int(answer.stale(view).sum())
        if stale:
            metrics.stale.labels(view).inc(stale)
