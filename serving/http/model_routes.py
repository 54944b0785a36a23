"""The routes that show models, and move them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response

from skewless.contract.clock import Clock
from skewless.infra.packages.served_model import ServedModel
from skewless.serving.http.reply import json_response
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.peer_workers import PeerWorkers

_LOAD_SECONDS = 60.0  # a sibling opens a model meanwhile


def add_models(app: FastAPI, *, models: ModelTable, peers: PeerWorkers | None, metrics: Metrics, clock: Clock) -> None:
    """Add the routes.

    Args:
        peers: other workers, which are told when something was moved; None: there are none.
    """

    @app.get("/models", summary="List the models that are served")
    async def listed() -> Response:
        return json_response(
            {"models": [describe(model, models) for model in models.all()], "refused": models.problems}
        )

    @app.get("/models/{name}", summary="Describe a model: version, plan, inputs, quality")
    async def described(name: str) -> Response:
        return json_response(describe(models.get(name), models))

    @app.post("/models/refresh", summary="Look now for aliases that moved; say which models were swapped")
    async def refresh() -> Response:
        swapped = await models.refresh()
        for name in swapped:
            metrics.reloads(name).inc()
        await tell_peers(peers)
        return json_response({"swapped": swapped})

    @app.post(
        "/models/{name}/rollback",
        summary="End a rollout under way, or make the champion before this one champion again",
    )
    async def roll_back(name: str) -> Response:
        model = await models.roll_back(name, reason="rolled back over HTTP", now_us=clock.now_us())
        metrics.reloads(name).inc()
        await tell_peers(peers)
        return json_response(describe(model, models))


async def tell_peers(peers: PeerWorkers | None) -> None:
    """Let the other workers look at once for what was moved; one that does not answer looks by itself soon."""
    if peers is not None:
        await peers.ask("POST", "/models/refresh", timeout_s=_LOAD_SECONDS)


def describe(model: ServedModel, models: ModelTable) -> dict[str, Any]:
    """Return what clients may know of a model, as plain values."""
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
