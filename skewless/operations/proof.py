"""Parity and replay, with alerts for mismatches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing

from skewless.contract.names import check_known
from skewless.infra.alerts.alerts import Alert, Alerts
from skewless.infra.online.store import open_online_store
from skewless.infra.predictions.reader import PredictionLog
from skewless.validation.parity import Parity
from skewless.validation.parity_report import ParityReport, ViewParity
from skewless.validation.replay_report import ReplayReport
from skewless.validation.replay_tasks import replay_on_engine
from skewless.workspace import Workspace

PARITY, REPLAY = "parity", "replay"
ALL = "all models"
_EXAMPLES = 3


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
    parity = Parity(
        plan=project.needed.plan,
        labels=project.needed.label,
        state=project.state,
        views=project.views,
        reader=project.online_reader,
        clock=project.clock,
        engine=project.engine,
        redis_url=project.redis_url,
    )
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_online_store(project.redis_url))) if repair else None
        report = parity.run(views, sample=sample, seed=seed, repair=store)
    with _alerts(project) as alerts:
        for view in report.views:
            _update_parity_alert(alerts, view)
    return report


def run_replay(project: Workspace, model: str | None = None, *, new: bool = False) -> ReplayReport:
    """Recompute logged predictions from the accepted log; send an alert if one differs.

    Args:
        model: of the predictions; None: all models.
        new: skip log files that an earlier replay of all models has proven, and record the files of this one.

    Raises:
        RequestError: the model is not in the plan and has no version.
        PackageError: a package was altered or is missing.
        StoreError: a log file is corrupt, or the disk failed.
    """
    if model is not None:
        check_known("model", model, sorted({*project.packages.list_models()} | {spec.name for spec in project.models}))
    log = PredictionLog(project.state, project.connection, unproven=new)
    report = replay_on_engine(log, views=project.views, store=project.store, engine=project.engine, model=model)
    # With a model given, predictions of others in the same files were not compared.
    if new and model is None and report.ok:
        log.mark_proven()
    _update_replay_alert(project, model or ALL, report)
    return report


def _alerts(project: Workspace) -> Alerts:
    return Alerts(project.state, project.settings.alert_webhook)


def _update_parity_alert(alerts: Alerts, view: ViewParity) -> None:
    """Send or resolve the alert of a view; without a compared entity, the alert does not change."""
    if not view.remaining:
        if view.compared:
            alerts.resolve(PARITY, view.view, view.at_us)
        return
    alerts.send(
        Alert(
            name=PARITY,
            severity="critical",
            subject=view.view,
            message=f"{len(view.remaining):,} of {view.compared:,} online states differ from the log",
            at_us=view.at_us,
            evidence={**view.as_dict(), "examples": [item.line() for item in view.remaining[:_EXAMPLES]]},
        )
    )


def _update_replay_alert(project: Workspace, subject: str, report: ReplayReport) -> None:
    now_us = project.clock.now_us()
    with _alerts(project) as alerts:
        if report.ok:
            alerts.resolve(REPLAY, subject, now_us)
            return
        body = report.as_dict()
        alerts.send(
            Alert(
                name=REPLAY,
                severity="critical",
                subject=subject,
                message=f"{report.different:,} of {report.compared:,} logged predictions differ from their replay",
                at_us=now_us,
                evidence={"by_cause": body["by_cause"], "examples": body["examples"][:_EXAMPLES]},
            )
        )
