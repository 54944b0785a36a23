"""After the test period: all APIs on the same rows, a round of the scheduler, parity, replay, and the next steps."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from skewless.client import Client
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import StoreError
from skewless.demo.hours import RACE_ROWS
from skewless.demo.processes import run_command
from skewless.demo.tour_state import START_SECONDS, STATE, PrintLine, Row, TourState
from skewless.operations.readable import duration_text
from skewless.training.scheduling.job import list_jobs

_ROUND = ("materialize", "validate", "retrain")
_NOWHERE = "redis://127.0.0.1:1"
_ROWS = 200
_OK = 200
_DATATYPES = {
    DType.BOOL: "BOOL",
    DType.INT32: "INT32",
    DType.INT64: "INT64",
    DType.TIMESTAMP: "INT64",
    DType.FLOAT32: "FP32",
    DType.FLOAT64: "FP64",
}


def compare_apis(tour: TourState, client: Client) -> None:
    """Send the latest rows again: to `/predict`, as tensors of entities, and as complete vectors."""
    url = json.loads((tour.project.state / "server.json").read_text())["url"]
    with tour.stage("All APIs give the same answer") as print_line:
        for spec in tour.served:
            rows, plan = tour.asked.get(spec.name, [])[-_ROWS:], tour.plan_of(spec)
            if not rows:
                continue
            first = client.predict(rows, model=spec.name)
            inputs = [_tensor(column, rows) for column in (*plan.join_keys, *plan.request)]
            entities = _infer(url, spec.name, inputs, as_of=first.t_us)
            vectors = entities["feature_values"]
            matrix = {"name": "features", "shape": vectors["shape"], "datatype": "FP64", "data": vectors["data"]}
            predicted = [score for item in first for score in (item.scores or (item.score,))]
            scores = [predicted, entities["score"]["data"], _infer(url, spec.name, [matrix])["score"]["data"]]
            differ = sum(len({*item}) > 1 for item in zip(*scores, strict=True))
            print_line(f"{spec.name}: {len(rows)} rows by /predict, as entities and as vectors by /v2: {differ} differ")
            tour.facts["faces_different"] = tour.facts.get("faces_different", 0) + differ


def _tensor(column: Column, rows: Sequence[Row]) -> dict[str, Any]:
    datatype = _DATATYPES.get(column.dtype, "BYTES")
    return {"name": column.name, "shape": [len(rows)], "datatype": datatype, "data": [row[column.name] for row in rows]}


def _infer(url: str, model: str, inputs: Sequence[dict[str, Any]], **parameters: int) -> dict[str, Any]:
    """Return the outputs of a request of the Open Inference Protocol, by name."""
    names = [{"name": "score"}, {"name": "feature_values"}]
    request = json.dumps({"inputs": inputs, "outputs": names, "parameters": parameters})
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", request, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        body = json.loads(reply.read())
    finally:
        connection.close()
    if reply.status != _OK:
        raise StoreError(f"server at {url}", body["error"], fix="read server.log")
    return {output["name"]: output for output in body["outputs"]}


def retrain(tour: TourState, client: Client) -> None:
    """Run the scheduled jobs once, and wait until the running server has loaded the new versions."""
    with tour.stage("Scheduler round: materialize, validate, retrain, promote") as print_line:
        before = {model.name: model.version for model in client.models()}
        _run_jobs(tour, print_line)
        after = _wait_for_versions(tour, client)
        for model, version in after.items():
            change = f"went from {before.get(model, 'nothing')} to" if version != before.get(model) else "stays at"
            rows = tour.asked.get(model, [])[-RACE_ROWS:]
            reply = client.predict(rows, model=model) if rows else None
            answer = f"; {reply.version} answered {len(rows)} rows" if reply else ""
            print_line(f"{model}: the running server {change} {version}{answer}")
        tour.facts["versions"] = after


def _run_jobs(tour: TourState, print_line: PrintLine) -> None:
    """Run the jobs of the project; a model without a schedule or trigger has no retraining job."""
    planned = list_jobs(tour.project.settings, tour.project.models, lambda _model: False)
    kinds = {job.name.partition(" ")[0] for job in planned}
    options = [word for kind in _ROUND if kind in kinds for word in ("--only", kind)]
    retrained = {job.name.removeprefix("retrain ") for job in planned if job.name.startswith("retrain ")}
    for spec in tour.project.models:
        if spec.name not in retrained:
            print_line(f"{spec.name}: has no schedule and no trigger, so it is not retrained")
    for job in run_command(tour, "scheduler", *options, field="jobs")["jobs"] if options else ():
        models = [model["reason"] for model in job["outputs"].get("models", ()) if "reason" in model]
        reason = job["error"] or "; ".join(models) or f"run {job['id']} in the ledger"
        print_line(f"{job['job']}: {job['state']} in {duration_text(job['seconds'])}; {reason}")


def compare_store(tour: TourState) -> None:
    """Compare the online store with the log."""
    with tour.stage("Parity: the online store and the accepted log") as print_line:
        report = run_command(tour, "parity", field="compared")
        views = ", ".join(report["views"])
        print_line(f"{report['compared']:,} entities compared in {views}: {report['mismatches']} differ in a bit")
        tour.facts["parity_mismatches"] = report["mismatches"]


def replay(tour: TourState) -> None:
    """Recompute all predictions in another process, without Redis."""
    with tour.stage("Replay in another process, without Redis") as print_line:
        report = run_command(tour, "replay", field="lines", SKEWLESS_REDIS_URL=_NOWHERE)
        for line in report["lines"]:
            print_line(line)
        tour.facts |= {
            "replayed": report["compared"],
            "different_bits": report["different"],
            "status": report["status"],
        }
        tour.facts |= {"inside_run": report["inside_run"], "changing": report["changing"]}


def print_next_steps(tour: TourState) -> None:
    """Print commands to run next."""
    line = f"SKEWLESS_STATE={STATE} skewless {{}} --repo {os.path.relpath(tour.project.repo)}"
    tour.console.print("[bold]Next steps[/bold]")
    for command in ("status", "replay", "plan"):
        tour.console.print(f"  {line.format(command)}", highlight=False)
    tour.console.print(
        "  docs/first-project.md: a project on your own data, from `skewless init my-project`", highlight=False
    )


def _wait_for_versions(tour: TourState, client: Client) -> dict[str, str]:
    aliases = tour.project.store.aliases
    champions = {spec.name: aliases.get(spec.name, "champion") for spec in tour.project.models}
    versions = {name: version for name, version in champions.items() if version is not None}
    deadline = time.monotonic() + START_SECONDS
    while True:
        served = {model.name: model.version for model in client.models()}
        if served == versions or time.monotonic() > deadline:
            return served
        time.sleep(0.05)
