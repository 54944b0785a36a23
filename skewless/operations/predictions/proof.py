"""Parity and replay, with alerts for mismatches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any

from skewless.contract.names import check_known
from skewless.infra.platform.alerts.alerts import Alert, Alerts
from skewless.infra.reads.online.store import open_online_store
from skewless.infra.records.predictions.reader import PredictionLog
from skewless.validation.inventory import take_inventory
from skewless.validation.parity import Parity
from skewless.validation.parity_report import ParityReport
from skewless.validation.replay import replay_on_engine
from skewless.validation.replay_report import ReplayReport
from skewless.workspace import Workspace

PARITY, REPLAY = "parity", "replay"
ALL = "all models"
_EXAMPLES = 3


def open_parity(project: Workspace) -> Parity:
    """Return the parity of all views that something needs."""
    return Parity(
        plan=project.needed.plan,
        labels=project.needed.label,
        state=project.state,
        views=project.views,
        reader=project.online_reader,
        clock=project.clock,
        engine=project.engine,
        redis_url=project.redis_url,
    )


def run_parity(
    project: Workspace,
    views: Sequence[str] = (),
    *,
    sample: int = 1_000,
    seed: int = 0,
    repair: bool = False,
) -> ParityReport:
    """Compare online states with the log, store the verdict, and send an alert for each view with a mismatch.

    Args:
        views: names; empty: all.
        sample, seed: as ``skewless.validation.parity.Parity.run``.
        repair: rewrite mismatches from the log.

    Raises:
        RequestError: the plan has no such view.
        StoreError: the store is unavailable, or a log file is corrupt.
    """
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_online_store(project.redis_url))) if repair else None
        report = open_parity(project).run(views, sample=sample, seed=seed, repair=store)
    changes = []
    for view in report.views:
        # Without a compared entity, the alert does not change.
        if view.remaining or view.compared:
            message = f"{len(view.remaining):,} of {view.compared:,} online states differ from the log"
            examples = [item.line() for item in view.remaining[:_EXAMPLES]]
            evidence = {**view.as_dict(), "examples": examples}
            alert = _alert(PARITY, view.view, message, view.at_us, evidence)
            changes.append((alert, bool(view.remaining)))
    _update_alerts(project, changes)
    return report


def run_replay(project: Workspace, model: str | None = None, *, new: bool = False) -> ReplayReport:
    """Recompute logged predictions from the accepted log; send an alert if one differs.

    Args:
        model: of the predictions; None: all models.
        new: skip log files that an earlier replay of all models has proven, and record the files of this one.

    Raises:
        RequestError: the model is not in the plan and has no version.
        PackageError: a package was altered or is missing.
        StoreError: a log file is corrupt, the ledger of runs was altered, or the disk failed.
    """
    if model is not None:
        check_known("model", model, sorted({*project.packages.list_models()} | {spec.name for spec in project.models}))
    project.views.ledger.check_all()
    log = PredictionLog(project.state, project.connection, unproven=new)
    report = replay_on_engine(log, views=project.views, store=project.store, engine=project.engine, model=model)
    report.inventory = take_inventory(log, project.state.database, is_whole=not new)
    # With a model given, predictions of others in the same files were not compared.
    if new and model is None and report.ok:
        log.mark_proven()
    message = f"{report.different:,} of {report.compared:,} logged predictions differ from their replay"
    message = "; ".join([message, *(line.strip() for line in report.inventory.lines())])
    body = report.as_dict()
    evidence = {"by_cause": body["by_cause"], "examples": body["examples"][:_EXAMPLES]}
    alert = _alert(REPLAY, model or ALL, message, project.clock.now_us(), evidence)
    _update_alerts(project, [(alert, not report.ok)])
    return report


def _alert(name: str, subject: str, message: str, at_us: int, evidence: Mapping[str, Any]) -> Alert:
    return Alert(name=name, severity="critical", subject=subject, message=message, at_us=at_us, evidence=evidence)


def _update_alerts(project: Workspace, changes: Sequence[tuple[Alert, bool]]) -> None:
    """Send each alert that fires, and resolve the others."""
    with Alerts(project.state, project.settings.alert_webhook) as alerts:
        for alert, is_firing in changes:
            if is_firing:
                alerts.send(alert)
            else:
                alerts.resolve(alert.name, alert.subject, alert.at_us)
