"""Routes of the Open Inference Protocol: server, models, repository, and the adapter to ``infer``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from skewless.contract.errors import RequestError
from skewless.serving.http.hot_routes import HotRoutes, run_handler
from skewless.serving.http.model_routes import notify_peers
from skewless.serving.http.openapi import RequestBody
from skewless.serving.http.reply import json_response
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.loaded_models import MODEL_FIELD
from skewless.serving.models.table import ModelTable
from skewless.serving.oip.metadata import config_of, index_of, metadata_of
from skewless.serving.oip.models import OipModels
from skewless.serving.oip.request import parse_json, read_flag
from skewless.serving.oip.schemas import (
    ERRORS,
    IndexEntry,
    IndexRequest,
    InferenceReply,
    InferenceRequest,
    LoadParameters,
    LoadReply,
    LoadRequest,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    ModelVersions,
    OipError,
    ServerLive,
    ServerMetadata,
    ServerReady,
    Statistics,
)
from skewless.serving.peer_workers import PeerWorkers
from skewless.version import __version__

PREFIX = "/v2"
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics"]
_MODEL = "/models/{name}"
_REPOSITORY = "/repository"
_VERSION = "/models/{name}/versions/{version}"
_BODY = RequestBody(InferenceRequest).openapi_extra


def oip_router(
    *,
    routes: HotRoutes,
    models: ModelTable,
    oip_models: OipModels,
    metrics: Metrics,
    ready: Callable[[], dict[str, str]],
    peers: PeerWorkers | None,
) -> APIRouter:
    """Return the routes.

    Args:
        routes: contains the handler of ``infer``.
        ready: returns the reasons why the server is not ready; empty: it is ready.
        peers: the other workers, which are notified of loaded models; None: this is the only worker.
    """
    router = APIRouter(prefix=PREFIX, tags=["Open Inference Protocol"], responses=dict(ERRORS))
    _add_server(router, ready)
    _add_statistics(router, models, oip_models)
    _add_metadata(router, models, oip_models)
    _add_config(router, models, oip_models)
    _add_ready(router, models)
    _add_infer(router, routes)
    _add_repository(router, models, metrics, peers)
    return router


def make_reply(body: BaseModel | Sequence[BaseModel], status: int = 200) -> Response:
    """Return a JSON reply."""
    data = body.model_dump() if isinstance(body, BaseModel) else [item.model_dump() for item in body]
    return json_response(data, status)


def _add_server(router: APIRouter, ready: Callable[[], dict[str, str]]) -> None:
    @router.get("", summary="Describe the server", response_model=ServerMetadata)
    async def server() -> Response:
        return make_reply(ServerMetadata(name="skewless", version=__version__, extensions=EXTENSIONS))

    @router.get("/health/live", summary="Report that the process responds", response_model=ServerLive)
    async def live() -> Response:
        return make_reply(ServerLive(live=True))

    @router.get("/health/ready", summary="Report whether the server is ready", response_model=ServerReady)
    async def is_ready() -> Response:
        reasons = ready()
        error = "; ".join(f"{thing}: {reason}" for thing, reason in reasons.items())
        return make_reply(OipError(error=error), 503) if reasons else make_reply(ServerReady(live=True, ready=True))


def _add_metadata(router: APIRouter, models: ModelTable, oip_models: OipModels) -> None:
    def metadata(name: str, version: str | None = None) -> Response:
        model = models.get(name, version)
        return make_reply(metadata_of(model, oip_models.get(model).signature, models.open_versions(name)))

    @router.get(_MODEL, summary="Describe the tensors of a model", response_model=ModelMetadata)
    async def of_model(name: str) -> Response:
        return metadata(name)

    @router.get(_VERSION, summary="Describe the tensors of a version", response_model=ModelMetadata)
    async def of_version(name: str, version: str) -> Response:
        return metadata(name, version)

    @router.get(f"{_MODEL}/versions", summary="List the loaded versions of a model", response_model=ModelVersions)
    async def versions(name: str) -> Response:
        models.get(name)
        return make_reply(ModelVersions(name=name, versions=models.open_versions(name)))


def _add_config(router: APIRouter, models: ModelTable, oip_models: OipModels) -> None:
    def config(name: str, version: str | None = None) -> Response:
        model = models.get(name, version)
        return make_reply(config_of(model, oip_models.get(model).signature))

    @router.get(f"{_MODEL}/config", summary="Describe a model in Triton's format", response_model=ModelConfig)
    async def of_model(name: str) -> Response:
        return config(name)

    @router.get(f"{_VERSION}/config", summary="Describe a version in Triton's format", response_model=ModelConfig)
    async def of_version(name: str, version: str) -> Response:
        return config(name, version)


def _add_ready(router: APIRouter, models: ModelTable) -> None:
    @router.get(f"{_MODEL}/ready", summary="Report whether a model is served", response_model=ModelReady)
    async def of_model(name: str) -> Response:
        models.get(name)
        return make_reply(ModelReady(name=name, ready=True))

    @router.get(f"{_VERSION}/ready", summary="Report whether a version is loaded", response_model=ModelReady)
    async def of_version(name: str, version: str) -> Response:
        models.get(name, version)
        return make_reply(ModelReady(name=name, ready=True))


def _add_statistics(router: APIRouter, models: ModelTable, oip_models: OipModels) -> None:
    def statistics(*names: tuple[str, str]) -> Response:
        served = [models.get(name, version) for name, version in names]
        return make_reply(Statistics(model_stats=[oip_models.get(model).counts.statistics(model) for model in served]))

    def versions(name: str) -> list[tuple[str, str]]:
        return [(name, version) for version in models.open_versions(models.get(name).name)]

    # Before the routes of one model, since "stats" would match the name of a model.
    @router.get("/models/stats", summary="Return request counts of this worker", response_model=Statistics)
    async def of_all() -> Response:
        return statistics(*(item for model in models.all() for item in versions(model.name)))

    @router.get(f"{_MODEL}/stats", summary="Return request counts of a model", response_model=Statistics)
    async def of_model(name: str) -> Response:
        return statistics(*versions(name))

    @router.get(f"{_VERSION}/stats", summary="Return request counts of a version", response_model=Statistics)
    async def of_version(name: str, version: str) -> Response:
        return statistics((name, version))


def _add_infer(router: APIRouter, routes: HotRoutes) -> None:
    async def infer(request: Request) -> Response:
        handler = routes.find(request.url.path)
        if handler is None:
            raise RequestError(MODEL_FIELD, "is not a served model", fix="POST /v2/repository/index lists the models")
        return await run_handler(routes, handler, request)

    @router.post(f"{_MODEL}/infer", summary="Predict with a model", response_model=InferenceReply, openapi_extra=_BODY)
    async def of_model(name: str, request: Request) -> Response:  # noqa: ARG001 - the handler reads the path
        return await infer(request)

    @router.post(
        f"{_VERSION}/infer", summary="Predict with a version", response_model=InferenceReply, openapi_extra=_BODY
    )
    async def of_version(name: str, version: str, request: Request) -> Response:  # noqa: ARG001 - as above
        return await infer(request)


def _add_repository(router: APIRouter, models: ModelTable, metrics: Metrics, peers: PeerWorkers | None) -> None:
    @router.post(
        f"{_REPOSITORY}/index",
        summary="List all versions of all models",
        response_model=list[IndexEntry],
        openapi_extra=RequestBody(IndexRequest, required=False).openapi_extra,
    )
    async def index(request: Request) -> Response:
        only_ready = read_flag("request", _parse_object(await request.body()), "ready", default=False)
        versions = await asyncio.to_thread(models.known_versions)
        return make_reply([entry for entry in index_of(models, versions) if entry.state == "READY" or not only_ready])

    @router.post(
        f"{_REPOSITORY}{_MODEL}/load",
        summary="Load a model, or one more version of it",
        response_model=LoadReply,
        openapi_extra=RequestBody(LoadRequest, required=False).openapi_extra,
    )
    async def load(name: str, request: Request) -> Response:
        model = await models.serve_version(name, _parse_version(_parse_object(await request.body())))
        metrics.reloads(name).inc()
        await notify_peers(peers)
        return make_reply(LoadReply(name=model.name, version=model.version))

    @router.post(f"{_REPOSITORY}{_MODEL}/unload", summary="Unload a model", response_model=ModelReady)
    async def unload(name: str) -> Response:
        await models.unload_model(name)
        await notify_peers(peers)
        return make_reply(ModelReady(name=name, ready=False))


def _parse_object(body: bytes) -> Mapping[str, Any]:
    served = parse_json(body) if body else {}
    if not isinstance(served, dict):
        raise RequestError("request body", "is not a JSON object", fix="send an object, or no body")
    return served


def _parse_version(body: Mapping[str, Any]) -> str | None:
    parameters = {} if body.get("parameters") is None else body["parameters"]
    unknown = parameters.keys() - LoadParameters.model_fields.keys() if isinstance(parameters, dict) else {"parameters"}
    if unknown:
        raise RequestError(
            f"parameter {min(unknown)!r}", "is not supported: training creates packages", fix="send a version"
        )
    version = parameters.get("version")
    if version is not None and not (isinstance(version, str) and version.isascii() and version.isdecimal()):
        raise RequestError("parameter 'version'", "is not a version", value=version, fix='send "1" or "000001"')
    return version
