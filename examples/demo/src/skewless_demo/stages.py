"""The stages before and after the test period.

Before: definitions applied, data checked and materialized, history imported, models trained. After: all APIs on the
same rows, a round of the scheduler, parity, replay, and the next steps.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import urllib3

from skewless.client import Client
from skewless.contract.clock import from_us
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError, GateError, SourceError, StoreError
from skewless.contract.plan import FeaturePlan
from skewless.contract.readable import duration_text
from skewless.contract.spec import ModelSpec
from skewless.infra.ingest.streams.backfill import Backfiller
from skewless.infra.ingest.streams.decode import FUTURE_US
from skewless.infra.models.packages.served_model import load_model
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.labels import find_servable, label_source, read_labels, table_spec
from skewless.infra.reads.online.store import open_online_store
from skewless.training.promotion import TrainReport
from skewless.training.quality import quality_lines
from skewless.training.scheduling.job import list_jobs
from skewless.training.stored_matrix import score_rows
from skewless.validation.evaluation.metrics import ScoredRows
from skewless_demo.decided import redis_sinks
from skewless_demo.feed import live_folder
from skewless_demo.hours import RACE_ROWS
from skewless_demo.tour_state import (
    HOUR_US,
    START_SECONDS,
    STATE,
    PrintLine,
    Row,
    TourState,
    gain_text,
    gains,
    json_rows,
    run_command,
)


def prepare(tour: TourState) -> None:
    """Run the stages before the test period, and select the label rows of each model in it.

    The period starts with the earliest test period of a model.

    Raises:
        DefinitionError: the project has no model.
        SourceError: a label table has no row.
        GateError: no model passed its gate.
    """
    project = tour.project
    with tour.stage("Definitions -> plan") as print_line:
        report = project.apply()
        print_line(f"plan {report.hash}: {len(report.changes)} new views, transforms, services and models")
    if not project.models:
        raise DefinitionError(f"project in {project.repo}", "has no model", fix="declare one in models.py")
    periods = {spec.name: _read_period(tour, spec) for spec in project.models}
    begin = min(period.begin_us for period in periods.values()) // HOUR_US * HOUR_US
    # One hour early: the clock ticks while models train, and cannot be moved back.
    tour.clock.set(begin - HOUR_US)
    _materialize(tour)
    if project.applied.plan.windows:
        _import(tour)
    for model in project.models:
        _train(tour, model)
    _select_served(tour)
    _compare(tour)
    decided = {stream.model for stream, _ in redis_sinks(tour)}
    for spec in tour.served:
        # Events are decided from the time of the clock on, requests come an hour later.
        since = begin - HOUR_US if spec.name in decided else begin
        tour.rows[spec.name] = _request_rows(tour.plan_of(spec), periods[spec.name].rows, since)


class _Period(NamedTuple):
    """The label rows of a model in the test period and perhaps before it, and the time at which the period begins."""

    rows: pa.Table
    begin_us: int


def _read_period(tour: TourState, spec: ModelSpec) -> _Period:
    """Return the label rows of a model.

    If the label table is a folder ``history``, those of the test period are in the folder ``live`` next to it, as
    events are; else they are the last rows of the label table itself.
    """
    project, table = tour.project, table_spec(spec)
    if table is None:
        raise DefinitionError(f"model {spec.name!r} labels", "have no table, which the demo needs", fix="name a table")
    source = label_source(table)
    history = project.repo / source.path
    folder = live_folder(history) if history.name == "history" else None
    if folder is not None:
        table = replace(table, labels=replace(source, path=str(folder)))
    rows = read_labels(project.connection, project.repo, tour.plan_of(spec), table)
    first, last = (edge.as_py() for edge in (pc.min(rows[TIME]), pc.max(rows[TIME])))
    if last is None:
        raise SourceError(f"label table of model {spec.name!r}", "has no row", fix="add labels")
    return _Period(rows, int(last - spec.as_dict()["split"]["test"] if folder is None else first + HOUR_US))


def _request_rows(plan: FeaturePlan, rows: pa.Table, begin: int) -> pa.Table:
    later = pc.greater_equal(rows[TIME], begin)
    return rows.filter(pc.and_(later, pa.array(find_servable(plan.request, rows))))


def _select_served(tour: TourState) -> None:
    """Select the models with a champion; the other models are not served."""
    aliases = tour.project.store.aliases
    tour.served = [spec for spec in tour.project.models if aliases.get(spec.name, "champion") is not None]
    if not tour.served:
        names = ", ".join(spec.name for spec in tour.project.models)
        fix = "improve the models, or change their gates in models.py"
        raise GateError("demo", "has no model that passed its gate", value=names, fix=fix)


def _materialize(tour: TourState) -> None:
    with tour.stage("Sources -> checks") as print_line:
        now = f"{from_us(tour.clock.now_us()):%Y-%m-%d %H:%M} UTC"
        print_line(f"the clock is at {now}; later data is not visible")
        if tour.project.applied.plan.sources:
            slack = FUTURE_US // 1_000_000
            print_line(f"an event more than {slack} s later than this clock is quarantined, and is not applied later:")
            print_line("send your own events with times up to the demo's clock")
            tour.facts["events_rejected_beyond_clock_s"] = slack
        for check in tour.project.validate().reports:
            check.raise_if_failed()
            print_line(f"{check.name}: {check.n_rows:,} rows, {len(check.results)} expectations pass")
    with tour.stage("Source rows -> accepted log -> online store") as print_line:
        for item in tour.project.materialize():
            print_line(
                f"{item.view}: {item.accepted:,} rows accepted, {item.rejected} quarantined, {item.written:,} keys"
            )


def _import(tour: TourState) -> None:
    project, streams = tour.project, tour.project.streams
    with tour.stage("Event history -> accepted log") as print_line:
        for result in project.import_events():
            print_line(f"{result.source}: {result.accepted:,} events accepted, {result.rejected} quarantined")
    with tour.stage("Events -> window states") as print_line, closing(open_online_store(streams.redis_url)) as store:
        for built in Backfiller(streams=streams, store=store).build_missing(project.applied.plan.windows):
            print_line(f"{built.view}: {built.events:,} events in {built.states:,} states")


def _train(tour: TourState, spec: ModelSpec) -> None:
    with tour.stage(f"Training set -> {spec.name}") as print_line:
        report = tour.project.train(spec.name)
        print_line(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in report.dataset.counts.items()))
        print_line(
            f"{int(report.dataset.train.sum()):,} training rows, {int(report.dataset.test.sum()):,} later test rows"
        )
        for line in quality_lines(report.trained.metrics):
            print_line(line)
        print_line(f"version {report.trained.package.version}: {report.decision.reason}")
        if not report.decision.promote:
            print_line(f"{spec.name} has no champion, so it is not served")
        tour.tested[spec.name] = _test_scores(tour, spec, report)


def _test_scores(tour: TourState, spec: ModelSpec, report: TrainReport) -> ScoredRows:
    dataset = report.dataset
    with load_model(tour.project.store, spec.name, report.trained.package.version) as model:
        scores = score_rows(model.runtime.score, dataset.select(dataset.test))
    return ScoredRows(labels=dataset.labels[dataset.test], scores=scores)


def _compare(tour: TourState) -> None:
    by_names = gains(tour.project.models, tour.project.applied.plan, tour.tested)
    if not by_names:
        return
    with tour.stage("The same model without and with windows, on the same test rows") as print_line:
        for names, gain in by_names.items():
            print_line(f"{names}: {gain_text(gain)}")
            tour.facts["gain"] = asdict(gain)


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
    request = {"inputs": inputs, "outputs": names, "parameters": parameters}
    reply = urllib3.request("POST", f"{url}/v2/models/{model}/infer", json=request, timeout=30, retries=False)
    body = reply.json()
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
            rows = json_rows(tour.plan_of(tour.project.applied.model(model)), tour.rows[model][-RACE_ROWS:])
            reply = client.predict(rows, model=model)
            answer = f"; {reply.version} answered {len(rows)} rows"
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
