"""Routes that list, describe, refresh and roll back models."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response

from skewless.contract.clock import Clock
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.http.middleware import caller_of
from skewless.serving.http.reply import json_response
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.peer_workers import PeerWorkers
from skewless.serving.prediction.predictor import Predictor

_LOAD_SECONDS = 60.0  # a peer may load a model before it replies


def add_model_routes(
    app: FastAPI,
    *,
    models: ModelTable,
    predictor: Predictor,
    peers: PeerWorkers | None,
    metrics: Metrics,
    clock: Clock,
) -> None:
    """Add the routes.

    Args:
        peers: the other workers, which are notified of changes; None: this is the only worker.
    """

    @app.get("/models", summary="List the served models")
    async def list_models(request: Request) -> Response:
        caller = caller_of(request)
        described = [describe_model(model, models) for model in models.all() if caller.may_use(model.name)]
        # A problem is that of a model or of one of its versions, or of the project.
        refused = {thing: why for thing, why in models.problems.items() if caller.may_use(thing.partition(" ")[0])}
        return json_response({"models": described, "refused": refused})

    @app.get("/models/{name}", summary="Describe a model: version, plan, inputs and quality")
    async def described(name: str) -> Response:
        return json_response(describe_model(models.get(name), models))

    @app.get("/models/{name}/check", summary="Make a synthetic prediction, which is neither logged nor counted")
    async def check(name: str) -> Response:
        return json_response((await predictor.check(models.get(name))).as_dict())

    @app.post("/models/refresh", summary="Check the aliases now, and list the models that were swapped")
    async def refresh(request: Request) -> Response:
        swapped = await models.refresh()
        for name in swapped:
            metrics.reloads(name).inc()
        await notify_peers(peers)
        return json_response({"swapped": [name for name in swapped if caller_of(request).may_use(name)]})

    @app.post(
        "/models/{name}/rollback",
        summary="End the running rollout, or make the previous champion champion again",
    )
    async def roll_back(name: str, request: Request) -> Response:
        reason = f"rolled back over HTTP by {caller_of(request)!r}"
        model = await models.roll_back(name, reason=reason, now_us=clock.now_us())
        metrics.reloads(name).inc()
        await notify_peers(peers)
        return json_response(describe_model(model, models))


async def notify_peers(peers: PeerWorkers | None) -> None:
    """Make the other workers check the aliases at once; a worker that does not reply will check them soon anyway."""
    if peers is not None:
        await peers.send_request("POST", "/models/refresh", timeout_s=_LOAD_SECONDS)


def describe_model(model: ServedModel, models: ModelTable) -> dict[str, Any]:
    """Return the description of a model for clients, as plain values."""
    plan, package = model.plan, model.package
    routing = models.routing(model.name)
    return {
        "model": model.name,
        "version": model.version,
        "versions": models.open_versions(model.name),
        "traffic": None if routing is None else routing.policy.as_dict(),
        "digest": package.digest,
        "algorithm": package.spec.algorithm,
        "task": package.spec.task,
        "plan_hash": plan.hash,
        "runtime": {"id": model.runtime.runtime_id, "bit_equal": model.certificate.bit_equal},
        "runtimes": [trial.as_dict() for trial in model.trials],
        "inputs": {
            "keys": {column.name: column.dtype for column in plan.join_keys},
            "request": {column.name: column.dtype for column in plan.request},
        },
        "features": list(model.assembler.labels),
        "views": {view.name: view.hash for view in plan.all_views},
        "metrics": package.metrics,
        "log": package.spec.log,
    }
