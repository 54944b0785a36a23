"""Replay: every logged prediction computed again from the accepted log, and compared bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from skewless.contract.rows import ViewRead
from skewless.contract.spec import TimeMode
from skewless.contract.status import BoolArray, Status, count_statuses
from skewless.infra.log.runs import MaterializationRun
from skewless.infra.offline.views import OfflineViews
from skewless.infra.packages.served_model import ServedModel, load_model
from skewless.infra.packages.store import PackageStore
from skewless.infra.predictions.reader import LoggedPredictions, PredictionLog
from skewless.validation.allowed_reads import check_states, check_versions
from skewless.validation.bit_comparison import compare_bits, equal_bits
from skewless.validation.rebuilt_predictions import RebuiltPredictions, entity_table, key_rows, rebuild, rescore
from skewless.validation.replay_report import Reason, ReplayReport, TrainingGap

_MILLISECOND = 1_000


def replay_log(
    log: PredictionLog, *, views: OfflineViews, store: PackageStore, model: str | None = None
) -> ReplayReport:
    """Recompute the predictions of a log, or those of one model; reads log, ledger and packages only.

    Raises:
        PackageError: a package that answered was altered or is gone.
        StoreError: a log file is damaged.
    """
    report = ReplayReport()
    runs = views.ledger.runs()
    for version in log.versions():
        if model in {None, version.model}:
            served = load_model(store, version.model, version.version)
            try:
                for logged in log.batches(version):
                    replay_piece(report, served, views, logged, runs)
            finally:
                served.runtime.close()
    return report


def replay_piece(
    report: ReplayReport,
    model: ServedModel,
    views: OfflineViews,
    logged: LoggedPredictions,
    runs: Sequence[MaterializationRun],
) -> None:
    """Add to a report what comes of some predictions of one model version.

    Args:
        runs: of the project, in the order of their ids.
    """
    report.compared += len(logged.ids)
    if logged.source == "vectors":
        report.given += len(logged.ids)
        compare_bits(model, logged, rescore(model, logged), report.findings)
        return
    rebuilt = rebuild(model, views, logged, report.findings)
    compare_bits(model, logged, rebuilt, report.findings)
    report.inside_run += int(_inside(logged, runs).sum())
    _count_status(report, model, logged, rebuilt)
    _check_views(report, model, views, logged, rebuilt)
    for mode in ("knowledge", "event_time"):
        _add_gap(report.training[mode], mode, model, views, logged, rebuilt)


def _check_views(
    report: ReplayReport,
    model: ServedModel,
    views: OfflineViews,
    logged: LoggedPredictions,
    rebuilt: RebuiltPredictions,
) -> None:
    for view in model.plan.views:
        raced = check_versions(view, views, logged, rebuilt, report.findings)
        report.changing += int(raced.changed.sum())
        report.saw_old += int(raced.saw_old.sum())
        report.saw_new += int(raced.saw_new.sum())
    for window in model.plan.windows:
        check_states(window, views, logged, rebuilt.ask, report.findings)


def _count_status(
    report: ReplayReport, model: ServedModel, logged: LoggedPredictions, rebuilt: RebuiltPredictions
) -> None:
    for view in model.plan.all_views:
        status = logged.reads[view.name].status
        report.status.setdefault(view.name, Counter()).update(count_statuses(status))
        keys, absent = key_rows(view, rebuilt.ask), np.flatnonzero(status == Status.NOT_FOUND)
        report.absent.setdefault(view.name, set()).update(keys[i] for i in absent)


def _inside(logged: LoggedPredictions, runs: Sequence[MaterializationRun]) -> BoolArray:
    inside = np.zeros(len(logged.ids), dtype=np.bool_)
    ended = np.iinfo(np.int64).max
    for run in reversed(runs):
        # A run that crashed is in flight until the next one that ends, which covers it.
        ended = ended if run.ended_us is None else run.ended_us
        inside |= (logged.read_end >= run.started_us) & (logged.read_start <= ended)
    return inside


def _add_gap(
    gap: TrainingGap,
    mode: TimeMode,
    model: ServedModel,
    views: OfflineViews,
    logged: LoggedPredictions,
    rebuilt: RebuiltPredictions,
) -> None:
    """Compare a piece with what training in a time mode would join (SEMANTICS 7.2): reported, never failed."""
    reads = {
        view.name: views.read_view(view, entity_table(view, rebuilt.ask, logged.t), mode) for view in model.plan.views
    }
    reads |= {
        view.name: views.read_window(view, entity_table(view, rebuilt.ask, logged.t), mode)
        for view in model.plan.windows
    }
    trained = model.assembler.assemble(logged.t, reads, rebuilt.ask.fields).matrix
    asked_now = logged.asked_at // _MILLISECOND * _MILLISECOND == logged.t
    gap.rows += int(asked_now.sum())
    gap.different += int((asked_now & (~equal_bits(trained, rebuilt.matrix)).any(axis=1)).sum())
    for view, read in reads.items():
        reasons = gap.reasons.setdefault(view, Counter())
        for reason, rows in _reasons(read, rebuilt.reads[view], mode, logged.read_start < logged.t).items():
            if (rows & asked_now).any():
                reasons[reason] += int((rows & asked_now).sum())


def _reasons(trained: ViewRead, served: ViewRead, mode: TimeMode, cached: BoolArray) -> dict[Reason, BoolArray]:
    if trained.block is not None and served.block is not None:
        # Windows come from many rows: any event that one side knows and the other does not.
        changed = np.asarray((~equal_bits(trained.block, served.block)).any(axis=1), dtype=np.bool_)
        return _not_known(changed, cached) if mode == "knowledge" else {"late": changed}
    other = trained.versions.seq != served.versions.seq
    if mode == "knowledge":
        return _not_known(other, cached)
    same_event = other & (trained.versions.event_ts == served.versions.event_ts)
    return {"corrected": same_event, "late": np.asarray(other & ~same_event, dtype=np.bool_)}


def _not_known(other: BoolArray, cached: BoolArray) -> dict[Reason, BoolArray]:
    return {"in_flight": other & ~cached, "cached": other & cached}
