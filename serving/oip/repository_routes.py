"""The protocol's routes that show all versions and say which of them answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from skewless.contract.errors import RequestError
from skewless.serving.http.model_routes import tell_siblings
from skewless.serving.http.openapi import RequestBody
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.oip.metadata import index_of
from skewless.serving.oip.request import flag, parse_json
from skewless.serving.oip.routes import PREFIX, reply
from skewless.serving.oip.schemas import (
    ERRORS,
    IndexEntry,
    IndexRequest,
    LoadParameters,
    LoadReply,
    LoadRequest,
    ModelReady,
)
from skewless.serving.siblings import Siblings

_MODEL = "/models/{name}"


def repository_router(*, models: ModelTable, metrics: Metrics, siblings: Siblings | None) -> APIRouter:
    """Return the routes.

    Args:
        siblings: other workers, which are told when something was loaded; None: there are none.
    """
    router = APIRouter(prefix=f"{PREFIX}/repository", tags=["Open Inference Protocol"], responses=dict(ERRORS))

    @router.post(
        "/index",
        summary="List all versions",
        response_model=list[IndexEntry],
        openapi_extra=RequestBody(IndexRequest, required=False).described,
    )
    async def index(request: Request) -> Response:
        only_ready = flag("request", _object(await request.body()), "ready", default=False)
        return reply([entry for entry in index_of(models) if entry.state == "READY" or not only_ready])

    @router.post(
        f"{_MODEL}/load",
        summary="Serve a model, or one more version of it",
        response_model=LoadReply,
        openapi_extra=RequestBody(LoadRequest, required=False).described,
    )
    async def load(name: str, request: Request) -> Response:
        model = await models.want(name, _version(_object(await request.body())))
        metrics.reloads(name).inc()
        await tell_siblings(siblings)
        return reply(LoadReply(name=model.name, version=model.version))

    @router.post(f"{_MODEL}/unload", summary="Stop serving a model", response_model=ModelReady)
    async def unload(name: str) -> Response:
        await models.unwant(name)
        await tell_siblings(siblings)
        return reply(ModelReady(name=name, ready=False))

    return router


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
