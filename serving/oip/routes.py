"""The protocol's routes in the application: what the server and its models are, and the door to ``infer``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from skewless.contract.errors import RequestError
from skewless.serving.http.hot_routes import HotRoutes, answer
from skewless.serving.http.model_routes import tell_peers
from skewless.serving.http.openapi import RequestBody
from skewless.serving.http.reply import json_response
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import MODEL_FIELD, ModelTable
from skewless.serving.oip.metadata import config_of, index_of, metadata_of
from skewless.serving.oip.models import OipModels
from skewless.serving.oip.request import flag, parse_json
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
_BODY = RequestBody(InferenceRequest).described


def oip_router(
    *,
    routes: HotRoutes,
    models: ModelTable,
    shown: OipModels,
    metrics: Metrics,
    ready: Callable[[], dict[str, str]],
    peers: PeerWorkers | None,
) -> APIRouter:
    """Return the routes.

    Args:
        routes: holds ``infer``, which is documented here.
        ready: returns the reasons for not being ready; none: ready.
        peers: other workers, which are told when something was loaded; None: there are none.
    """
    router = APIRouter(prefix=PREFIX, tags=["Open Inference Protocol"], responses=dict(ERRORS))
    _add_server(router, ready)
    _add_statistics(router, models, shown)
    _add_metadata(router, models, shown)
    _add_config(router, models, shown)
    _add_ready(router, models)
    _add_infer(router, routes)
    _add_repository(router, models, metrics, peers)
    return router


def reply(body: BaseModel | Sequence[BaseModel], status: int = 200) -> Response:
    """Return a reply of JSON."""
    plain = body.model_dump() if isinstance(body, BaseModel) else [item.model_dump() for item in body]
    return json_response(plain, status)


def _add_server(router: APIRouter, ready: Callable[[], dict[str, str]]) -> None:
    @router.get("", summary="Say what the server is", response_model=ServerMetadata)
    async def server() -> Response:
        return reply(ServerMetadata(name="skewless", version=__version__, extensions=EXTENSIONS))

    @router.get("/health/live", summary="Say whether the process answers", response_model=ServerLive)
    async def live() -> Response:
        return reply(ServerLive(live=True))

    @router.get("/health/ready", summary="Say whether predictions are answered", response_model=ServerReady)
    async def is_ready() -> Response:
        reasons = ready()
        error = "; ".join(f"{thing}: {reason}" for thing, reason in reasons.items())
        return reply(OipError(error=error), 503) if reasons else reply(ServerReady(live=True, ready=True))


def _add_metadata(router: APIRouter, models: ModelTable, shown: OipModels) -> None:
    def metadata(name: str, version: str | None = None) -> Response:
        model = models.get(name, version)
        return reply(metadata_of(model, shown.of(model).signature, models.open_versions(name)))

    @router.get(_MODEL, summary="Describe a model's tensors", response_model=ModelMetadata)
    async def of_model(name: str) -> Response:
        return metadata(name)

    @router.get(_VERSION, summary="Describe a version's tensors", response_model=ModelMetadata)
    async def of_version(name: str, version: str) -> Response:
        return metadata(name, version)

    @router.get(f"{_MODEL}/versions", summary="List a model's versions", response_model=ModelVersions)
    async def versions(name: str) -> Response:
        models.get(name)
        return reply(ModelVersions(name=name, versions=models.open_versions(name)))


def _add_config(router: APIRouter, models: ModelTable, shown: OipModels) -> None:
    def config(name: str, version: str | None = None) -> Response:
        model = models.get(name, version)
        return reply(config_of(model, shown.of(model).signature))

    @router.get(f"{_MODEL}/config", summary="Describe a model as Triton does", response_model=ModelConfig)
    async def of_model(name: str) -> Response:
        return config(name)

    @router.get(f"{_VERSION}/config", summary="Describe a version as Triton does", response_model=ModelConfig)
    async def of_version(name: str, version: str) -> Response:
        return config(name, version)


def _add_ready(router: APIRouter, models: ModelTable) -> None:
    @router.get(f"{_MODEL}/ready", summary="Say whether a model answers", response_model=ModelReady)
    async def of_model(name: str) -> Response:
        models.get(name)
        return reply(ModelReady(name=name, ready=True))

    @router.get(f"{_VERSION}/ready", summary="Say whether a version answers", response_model=ModelReady)
    async def of_version(name: str, version: str) -> Response:
        models.get(name, version)
        return reply(ModelReady(name=name, ready=True))


def _add_statistics(router: APIRouter, models: ModelTable, shown: OipModels) -> None:
    def statistics(*asked: tuple[str, str]) -> Response:
        found = [models.get(name, version) for name, version in asked]
        return reply(Statistics(model_stats=[shown.of(model).tally.statistics(model) for model in found]))

    def versions(name: str) -> list[tuple[str, str]]:
        return [(name, version) for version in models.open_versions(models.get(name).name)]

    # Before the routes of one model: "stats" is no model's name.
    @router.get("/models/stats", summary="Count what this worker answered", response_model=Statistics)
    async def of_all() -> Response:
        return statistics(*(each for model in models.all() for each in versions(model.name)))

    @router.get(f"{_MODEL}/stats", summary="Count what a model answered", response_model=Statistics)
    async def of_model(name: str) -> Response:
        return statistics(*versions(name))

    @router.get(f"{_VERSION}/stats", summary="Count what a version answered", response_model=Statistics)
    async def of_version(name: str, version: str) -> Response:
        return statistics((name, version))


def _add_infer(router: APIRouter, routes: HotRoutes) -> None:
    async def infer(request: Request) -> Response:
        handler = routes.find(request.url.path)
        if handler is None:
            raise RequestError(MODEL_FIELD, "names no model that is served", fix="POST /v2/repository/index lists them")
        return await answer(routes, handler, request)

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
        summary="List all versions",
        response_model=list[IndexEntry],
        openapi_extra=RequestBody(IndexRequest, required=False).described,
    )
    async def index(request: Request) -> Response:
        only_ready = flag("request", _object(await request.body()), "ready", default=False)
        return reply([entry for entry in index_of(models) if entry.state == "READY" or not only_ready])

    @router.post(
        f"{_REPOSITORY}{_MODEL}/load",
        summary="Serve a model, or one more version of it",
        response_model=LoadReply,
        openapi_extra=RequestBody(LoadRequest, required=False).described,
    )
    async def load(name: str, request: Request) -> Response:
        model = await models.want(name, _version(_object(await request.body())))
        metrics.reloads(name).inc()
        await tell_peers(peers)
        return reply(LoadReply(name=model.name, version=model.version))

    @router.post(f"{_REPOSITORY}{_MODEL}/unload", summary="Stop serving a model", response_model=ModelReady)
    async def unload(name: str) -> Response:
        await models.unwant(name)
        await tell_peers(peers)
        return reply(ModelReady(name=name, ready=False))


def _object(body: bytes) -> Mapping[str, Any]:
    found = parse_json(body) if body else {}
    if not isinstance(found, dict):
        raise RequestError("request body", "is not a JSON object", fix="send an object, or nothing")
    return found


def _version(body: Mapping[str, Any]) -> str | None:
    parameters = {} if body.get("parameters") is None else body["parameters"]
    unknown = parameters.keys() - LoadParameters.model_fields.keys() if isinstance(parameters, dict) else {"parameters"}
    if unknown:
        raise RequestError(
            f"parameter {min(unknown)!r}", "is not supported: packages are made by training", fix="send a version"
        )
    version = parameters.get("version")
    if version is not None and not (isinstance(version, str) and version.isascii() and version.isdecimal()):
        raise RequestError("parameter 'version'", "is no version", value=version, fix='send "1" or "000001"')
    return version
