"""Replay by tasks: each recomputes the predictions of some segments of the log, and the driver adds the reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from skewless.contract.columns import digest
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.reads.engines.engine import Engine, open_project
from skewless.infra.reads.engines.results import read_json, write_json
from skewless.infra.reads.engines.task import Task, TaskResult
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.records.predictions.reader import PredictionLog
from skewless.validation.replay import replay_log
from skewless.validation.replay_report import Cause, Finding, Findings, ReplayReport, TrainingGap

# A prediction is rebuilt from its rows three times: as it was served, and in both time modes.
COST = 100
_NUMBERS = [field.name for field in fields(ReplayReport) if field.type == "int"]


def replay_on_engine(
    log: PredictionLog, *, views: OfflineViews, store: PackageStore, engine: Engine, model: str | None = None
) -> ReplayReport:
    """Return what ``replay_log`` returns; a large log is replayed on the engine.

    Raises:
        PackageError, StoreError: as ``replay_log``.
    """
    if not engine.is_large(log.rows, COST):
        return replay_log(log, views=views, store=store, model=model)

    def plan_tasks() -> Sequence[Task]:
        # The buckets of this log are its segments: a prediction has several entities, and belongs to none of them.
        return engine.split(
            "replay",
            len(log.objects),
            connection=views.connection,
            plan="",
            snapshot=_snapshot(views),
            parameters={"model": model},
            per_bucket=log.objects,
        )

    report, storage = ReplayReport(), views.state.storage
    with engine.run("replay", "replaying predictions", log.rows, plan_tasks) as results:
        for result in results:
            report.merge(_decode(read_json(storage, result.objects[0])))
    return report


def replay(task: Task) -> TaskResult:
    """Replay the predictions of a task's segments; the result is the report."""
    project = open_project(task)
    views = project.views
    log = PredictionLog(views.state, views.connection, only=task.inputs)
    store = PackageStore.of(views.state, project.settings)
    report = replay_log(log, views=views, store=store, model=task.parameters["model"])
    body = _encode(report)
    stored = write_json(views.state.storage, task.job, body)
    return TaskResult(objects=(stored,), rows=log.rows, digest=digest(body))


def _snapshot(views: OfflineViews) -> dict[str, Any]:
    """Return the extents of all logs, and of their files, which change if rows are erased."""
    query = "SELECT partition, count(*), sum(last_seq), sum(size) FROM segments GROUP BY partition ORDER BY partition"
    rows = [[name, int(count), int(last), int(size)] for name, count, last, size in views.state.database.query(query)]
    return {"logs": digest(rows), "run_id": views.ledger.last_finished()}


def _encode(report: ReplayReport) -> dict[str, Any]:
    """Return a report as plain values in a canonical order."""
    findings = report.findings
    return {name: getattr(report, name) for name in _NUMBERS} | {
        "by_cause": {cause.value: count for cause, count in findings.by_cause.items()},
        "predictions": sorted(findings.predictions),
        "examples": [asdict(item) for item in findings.examples],
        "status": {view: dict(counts) for view, counts in report.status.items()},
        "absent": {view: sorted(keys, key=repr) for view, keys in report.absent.items()},
        "training": {mode: gap.as_dict() for mode, gap in report.training.items()},
    }


def _decode(body: dict[str, Any]) -> ReplayReport:
    findings = Findings(
        by_cause=Counter({Cause(cause): count for cause, count in body["by_cause"].items()}),
        predictions=set(body["predictions"]),
        examples=[Finding(**{**item, "cause": Cause(item["cause"])}) for item in body["examples"]],
    )
    training = {
        mode: TrainingGap(
            rows=gap["rows"],
            different=gap["different"],
            reasons={view: Counter(counts) for view, counts in gap["reasons"].items()},
        )
        for mode, gap in body["training"].items()
    }
    return ReplayReport(
        **{name: body[name] for name in _NUMBERS},
        findings=findings,
        status={view: Counter(counts) for view, counts in body["status"].items()},
        absent={view: {tuple(key) for key in keys} for view, keys in body["absent"].items()},
        training=training,
    )
