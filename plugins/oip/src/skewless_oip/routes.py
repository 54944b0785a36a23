"""Routes of the Open Inference Protocol: server, models with their metadata, repository, adapter to ``infer``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel

from skewless.contract.errors import RequestError
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.app import ServingContext
from skewless.serving.http.hot_routes import HotRoutes, run_handler
from skewless.serving.http.middleware import caller_of
from skewless.serving.http.model_routes import notify_peers
from skewless.serving.http.openapi import RequestBody
from skewless.serving.http.reply import json_response
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.loaded_models import MODEL_FIELD
from skewless.serving.models.table import ModelTable
from skewless.serving.peer_workers import PeerWorkers
from skewless.version import __version__
from skewless_oip.infer_route import InferRoute
from skewless_oip.request import parse_json, read_flag
from skewless_oip.schemas import (
    ERRORS,
    ConfigParameter,
    ConfigTensor,
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
    TensorMetadata,
    VectorMetadata,
)
from skewless_oip.signature import OipModels, Signature, TensorType

PREFIX = "/v2"
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics"]
_MODEL = "/models/{name}"
_REPOSITORY = "/repository"
_VERSION = "/models/{name}/versions/{version}"
_BODY = RequestBody(InferenceRequest).openapi_extra
_TRITON = {"BYTES": "TYPE_STRING"}
InferRouteT = TypeVar("InferRouteT", bound=InferRoute)


class OipRoutes:
    """The routes of a server; see ``AddedRoutes`` of the core."""

    paths = frozenset[str]()

    def __init__(self) -> None:
        self.models = OipModels()

    def infer_route(self, kind: type[InferRouteT], serving: ServingContext) -> InferRouteT:
        """Return the route of ``infer`` for a transport."""
        return kind(oip_models=self.models, body_bytes=serving.body_bytes, **serving.route_arguments)

    def hot_routes(self, serving: ServingContext) -> HotRoutes:
        """Return the handler of ``infer``."""
        return HotRoutes({}, self.infer_route(InferRoute, serving).find)

    def add_to(self, app: FastAPI, routes: HotRoutes, serving: ServingContext) -> None:
        """Add all routes to the application."""
        router = APIRouter(prefix=PREFIX, tags=["Open Inference Protocol"], responses=dict(ERRORS))
        _add_server(router, serving.ready)
        _add_descriptions(router, serving.models, self.models)
        _add_infer(router, routes)
        _add_repository(router, serving.models, serving.metrics, serving.peers)
        app.include_router(router)


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


def _add_descriptions(router: APIRouter, models: ModelTable, oip_models: OipModels) -> None:
    def metadata(name: str, version: str | None) -> BaseModel:
        model = models.get(name, version)
        return metadata_of(model, oip_models.get(model).signature, models.open_versions(name))

    def config(name: str, version: str | None) -> BaseModel:
        model = models.get(name, version)
        return config_of(model, oip_models.get(model).signature)

    def is_ready(name: str, version: str | None) -> BaseModel:
        models.get(name, version)
        return ModelReady(name=name, ready=True)

    def statistics(name: str, version: str | None) -> Statistics:
        versions = models.open_versions(models.get(name).name) if version is None else [version]
        served = [models.get(name, each) for each in versions]
        return Statistics(model_stats=[oip_models.get(model).counts.statistics(model) for model in served])

    # Before the routes of one model, since "stats" would match the name of a model.
    @router.get("/models/stats", summary="Return request counts of this worker", response_model=Statistics)
    async def all_statistics(request: Request) -> Response:
        caller = caller_of(request)
        each = [statistics(model.name, None) for model in models.all() if caller.may_use(model.name)]
        return make_reply(Statistics(model_stats=[item for part in each for item in part.model_stats]))

    _add_pair(router, "/stats", "Return request counts of a {}", Statistics, statistics)
    _add_pair(router, "", "Describe the tensors of a {}", ModelMetadata, metadata)

    @router.get(f"{_MODEL}/versions", summary="List the loaded versions of a model", response_model=ModelVersions)
    async def loaded_versions(name: str) -> Response:
        models.get(name)
        return make_reply(ModelVersions(name=name, versions=models.open_versions(name)))

    _add_pair(router, "/config", "Describe a {} in Triton's format", ModelConfig, config)
    _add_pair(router, "/ready", "Report whether a {} is {}", ModelReady, is_ready)


def _add_pair(
    router: APIRouter, end: str, summary: str, reply: type[BaseModel], describe: Callable[[str, str | None], BaseModel]
) -> None:
    """Add a route that describes a model, and the same route for one version of it."""

    @router.get(f"{_MODEL}{end}", summary=summary.format("model", "served"), response_model=reply)
    async def of_model(name: str) -> Response:
        return make_reply(describe(name, None))

    @router.get(f"{_VERSION}{end}", summary=summary.format("version", "loaded"), response_model=reply)
    async def of_version(name: str, version: str) -> Response:
        return make_reply(describe(name, version))


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
        known, caller = await asyncio.to_thread(models.known_versions), caller_of(request)
        versions = {name: numbers for name, numbers in known.items() if caller.may_use(name)}
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


def metadata_of(model: ServedModel, signature: Signature, versions: list[str]) -> ModelMetadata:
    """Return a model's metadata.

    Args:
        versions: the loaded versions.
    """
    return ModelMetadata(
        name=model.name,
        versions=versions,
        platform=model.package.spec.algorithm,
        inputs=[_tensor(item) for item in signature.inputs],
        outputs=[_tensor(item) for item in signature.outputs.values()],
        parameters=VectorMetadata(
            vectors=_tensor(signature.vectors),
            features=list(signature.labels),
            views=list(signature.views),
            classes=list(signature.classes),
            plan_hash=model.plan.hash,
        ),
    )


def config_of(model: ServedModel, signature: Signature) -> ModelConfig:
    """Return a model's configuration in Triton's format."""
    package = model.package
    parameters = {
        "version": model.version,
        "digest": package.digest,
        "plan_hash": model.plan.hash,
        "task": package.spec.task,
        "runtime": model.runtime.runtime_id,
        "runtimes": orjson.dumps([trial.as_dict() for trial in model.trials]).decode(),
        "log": package.spec.log,
    }
    return ModelConfig(
        name=model.name,
        platform=package.spec.algorithm,
        max_batch_size=0,
        input=[_config(item) for item in signature.inputs],
        output=[_config(item) for item in signature.outputs.values()],
        parameters={name: ConfigParameter(string_value=value) for name, value in parameters.items()},
    )


def index_of(models: ModelTable, versions: Mapping[str, Sequence[str]]) -> Iterator[IndexEntry]:
    """Yield every version of every model, with the reason if it does not serve."""
    for name, known in versions.items():
        loaded = models.open_versions(name)
        for version in known:
            if version in loaded:
                yield IndexEntry(name=name, version=version, state="READY", reason="")
                continue
            problem = models.problems.get(f"{name} {version}") or (version == known[-1] and models.problems.get(name))
            yield IndexEntry(name=name, version=version, state="UNAVAILABLE", reason=problem or "not loaded")


def _tensor(item: TensorType) -> TensorMetadata:
    return TensorMetadata(name=item.name, datatype=item.datatype.name, shape=list(item.shape))


def _config(item: TensorType) -> ConfigTensor:
    kind = item.datatype.name
    return ConfigTensor(name=item.name, data_type=_TRITON.get(kind, f"TYPE_{kind}"), dims=list(item.shape))
