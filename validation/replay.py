"""Replay: recomputes every logged prediction from the accepted log and compares it bit for bit.

A large log is replayed by tasks: each recomputes the predictions of some segments, and the driver adds the reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from skewless.contract.columns import digest
from skewless.contract.errors import PackageError
from skewless.contract.rows import ViewRead
from skewless.contract.spec import TimeMode
from skewless.contract.status import BoolArray, Int64Array, Status, count_statuses
from skewless.infra.log.runs import RunTimes
from skewless.infra.models.packages.served_model import ServedModel, load_model
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.reads.engines.engine import Engine, open_project
from skewless.infra.reads.engines.results import read_json, write_json
from skewless.infra.reads.engines.task import Task, TaskResult
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.records.predictions.reader import LoggedPredictions, ModelVersion, PredictionLog
from skewless.validation.allowed_reads import check_states, check_versions, find_erased_reads
from skewless.validation.rebuilt_predictions import (
    RebuiltPredictions,
    compare_bits,
    entity_table,
    equal_bits,
    key_rows,
    rebuild,
    rescore,
)
from skewless.validation.replay_report import (
    CAUSES_OF_ERASURE,
    CAUSES_OF_ROWS,
    Cause,
    Finding,
    Findings,
    Reason,
    ReplayReport,
    TrainingGap,
)
from skewless.validation.replayed_actions import compare_actions

_MILLISECOND = 1_000
# A prediction is rebuilt from its rows three times: as it was served, and in both time modes.
COST = 100
_NUMBERS = [field.name for field in fields(ReplayReport) if field.type == "int"]


def replay_log(
    log: PredictionLog, *, views: OfflineViews, store: PackageStore, model: str | None = None
) -> ReplayReport:
    """Recompute the predictions of a log, or those of one model; reads only logs, ledger and packages.

    Raises:
        PackageError: a package that served predictions is altered or missing.
        StoreError: a log file is corrupt.
    """
    report = ReplayReport()
    for version in log.versions():
        if model in {None, version.model}:
            _replay_version(report, log, version, views, store)
    return report


def _replay_version(
    report: ReplayReport, log: PredictionLog, version: ModelVersion, views: OfflineViews, store: PackageStore
) -> None:
    altered: list[str] = []
    try:
        with load_model(store, version.model, version.version) as served:
            for logged in log.batches(version, altered):
                replay_batch(report, served, views, logged)
    except PackageError:
        # If all rows were altered, their server has not written these names of model and version.
        if not altered and any(log.batches(version, altered)):
            raise
    for prediction in altered:
        add_altered(report, prediction)


def add_altered(report: ReplayReport, prediction: str) -> None:
    """Count a prediction whose row was altered: that proves nothing about serving, so it is not recomputed."""
    report.compared += 1
    report.findings.add(
        prediction, Cause.LOGGED_VALUE, "checksum", "a column of its row is not as the server has logged it"
    )


def replay_batch(
    report: ReplayReport,
    model: ServedModel,
    views: OfflineViews,
    logged: LoggedPredictions,
    *,
    modes: Sequence[TimeMode] = ("knowledge", "event_time"),
) -> None:
    """Replay a batch of predictions of one model version and add the results to a report.

    Args:
        modes: time modes of training whose rows the served vectors are compared with.
    """
    report.compared += len(logged.ids)
    # The caller sent the features: nothing was read, so there are no reads and no training rows to compare with.
    if logged.source == "vectors":
        report.given += len(logged.ids)
        compare_bits(model, logged, rescore(model, logged), report.findings)
        compare_actions(model, logged, report.findings)
        return
    findings = Findings(max_examples=None)
    rebuilt = rebuild(model, views, logged, findings)
    compare_bits(model, logged, rebuilt, findings)
    compare_actions(model, logged, findings)
    report.inside_run += int(is_inside_run(logged.read_start, logged.read_end, views.ledger.times()).sum())
    _count_status(report, model, logged, rebuilt)
    for view in model.plan.views:
        check_versions(report, view, views, logged, rebuilt, findings)
    for window in model.plan.windows:
        check_states(window, views, logged, rebuilt.ask, findings)
    _add_findings(report, model, views, logged, findings)
    for mode in modes:
        _add_gap(report.training[mode], mode, model, views, logged, rebuilt)


def _add_findings(
    report: ReplayReport, model: ServedModel, views: OfflineViews, logged: LoggedPredictions, findings: Findings
) -> None:
    """Add the differences of a batch to a report; count predictions that erased rows may explain instead."""
    by_rows, by_lists = (
        findings.predictions - {item.prediction for item in findings.examples if item.cause not in causes}
        for causes in (CAUSES_OF_ROWS | CAUSES_OF_ERASURE, CAUSES_OF_ERASURE)
    )
    is_erased = find_erased_reads(model, views, logged) if by_rows - by_lists else ()
    erased = by_lists | ({name for name, each in zip(logged.ids, is_erased, strict=False) if each} & by_rows)
    report.erased += len(erased)
    for item in findings.examples:
        if item.prediction not in erased:
            report.findings.add(item.prediction, item.cause, item.about, item.detail)


def _count_status(
    report: ReplayReport, model: ServedModel, logged: LoggedPredictions, rebuilt: RebuiltPredictions
) -> None:
    for view in model.plan.all_views:
        status = logged.reads[view.name].status
        report.status.setdefault(view.name, Counter()).update(count_statuses(status))
        keys, not_found = key_rows(view, rebuilt.ask), np.flatnonzero(status == Status.NOT_FOUND)
        report.absent.setdefault(view.name, set()).update(keys[i] for i in not_found)


def is_inside_run(read_start: Int64Array, read_end: Int64Array, runs: RunTimes) -> BoolArray:
    """Return whether a run was in flight at any time of each read, shape ``(n,)``."""
    if not len(runs.run_id):
        return np.zeros(len(read_start), dtype=np.bool_)
    # A crashed run counts as in flight until the end of the next finished run, which repeats its rows.
    finished = np.flatnonzero(runs.has_ended)
    ends = np.append(runs.ended_us[finished], np.iinfo(np.int64).max)
    end_us = ends[np.searchsorted(finished, np.arange(len(runs.run_id)))]
    order = np.argsort(runs.started_us, kind="stable")
    # Of the runs that had begun by the end of the read, the latest end.
    begun = np.searchsorted(runs.started_us[order], read_end, side="right")
    latest_end = np.maximum.accumulate(end_us[order])[np.maximum(begun - 1, 0)]
    return np.asarray((begun > 0) & (latest_end >= read_start), dtype=np.bool_)


def _add_gap(
    gap: TrainingGap,
    mode: TimeMode,
    model: ServedModel,
    views: OfflineViews,
    logged: LoggedPredictions,
    rebuilt: RebuiltPredictions,
) -> None:
    """Compare a batch with the training rows of a time mode (SEMANTICS 7.2); differences do not fail the replay."""
    reads = {
        view.name: views.read_view(view, entity_table(view, rebuilt.ask, logged.t), mode) for view in model.plan.views
    }
    reads |= {
        view.name: views.read_window(view, entity_table(view, rebuilt.ask, logged.t), mode)
        for view in model.plan.windows
    }
    trained = model.assembler.assemble(logged.t, reads, rebuilt.ask.fields).matrix
    # A decision is made after the t of its event. A request for another time has no training row at the time of its
    # read, so it may differ.
    is_decision = np.array([partition is not None for partition, _ in logged.events], dtype=np.bool_)
    is_compared = is_decision | (logged.asked_at // _MILLISECOND * _MILLISECOND == logged.t)
    gap.rows += int(is_compared.sum())
    gap.different += int((is_compared & (~equal_bits(trained, rebuilt.matrix)).any(axis=1)).sum())
    for view, read in reads.items():
        reasons = gap.reasons.setdefault(view, Counter())
        for reason, rows in _find_reasons(read, rebuilt.reads[view], mode, logged, is_decision).items():
            if (rows & is_compared).any():
                reasons[reason] += int((rows & is_compared).sum())


def _find_reasons(
    trained: ViewRead, served: ViewRead, mode: TimeMode, logged: LoggedPredictions, is_decision: BoolArray
) -> dict[Reason, BoolArray]:
    if trained.block is not None and served.block is not None:
        # A window depends on many rows, so the reason is any event that only one side knows.
        is_different = np.asarray((~equal_bits(trained.block, served.block)).any(axis=1), dtype=np.bool_)
        is_newer, is_correction = is_decision & (mode == "knowledge"), np.zeros_like(is_decision)
    else:
        left, right = trained.versions, served.versions
        # A correction has the event time of the row that it replaces.
        is_different, is_correction = left.seq != right.seq, left.event_ts == right.event_ts
        is_newer = is_decision & (right.seq > left.seq)
    others, is_cached = is_different & ~is_newer, logged.read_start < logged.t
    reasons: dict[Reason, BoolArray] = {"after_t": is_different & is_newer}
    if mode == "knowledge":
        return reasons | {"in_flight": others & ~is_cached, "cached": others & is_cached}
    return reasons | {"corrected": others & is_correction, "late": others & ~is_correction}


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
