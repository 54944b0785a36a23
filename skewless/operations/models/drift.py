"""Drift of a model: a window of its predictions, compared with its training data."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from skewless.infra.models.packages.package import pinned_plan
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.operations.models.versions import open_champion

if TYPE_CHECKING:
    from skewless.validation.drift.verdicts import DriftReport
    from skewless.workspace import Workspace

ALERT, MOVED = "drift", "score_or_label_drift"


def check_drift(
    project: Workspace, model: str, *, until_us: int | None = None, window_us: int | None = None, dry_run: bool = False
) -> DriftReport:
    """Measure the drift of a model's champion, store the report, and send or resolve its alert.

    Args:
        until_us: end of the window, exclusive, UTC microseconds; None: now.
        window_us: its length; None: that of the model's ``Watch``.
        dry_run: store nothing and send nothing.

    Raises:
        RequestError: the plan has no such model.
        PackageError: it has no champion, or the package was altered.
        StoreError: a log is corrupt, or the disk failed.
    """
    report, distributions = _measure(project, model, until_us, window_us)
    if not dry_run:
        _drift_records(project).add(model, report.as_dict())
        body = {"version": report.version, "until_us": report.until_us, "features": distributions}
        _distributions(project).put(model, body)
        _update_alerts(project, report)
    return report


def _measure(
    project: Workspace, model: str, until_us: int | None, window_us: int | None
) -> tuple[DriftReport, dict[str, Any]]:
    """Return the report of a window, and the distributions of the features."""
    from skewless.infra.records.predictions.live_predictions import ServedScores
    from skewless.operations.models.quality import labelled_log
    from skewless.validation.drift.verdicts import LABEL, SCORE, DriftReport, compare_window, describe_distributions
    from skewless.validation.drift_tasks import measure_window

    spec, package = project.applied.model(model), open_champion(project, model)
    until = project.clock.now_us() if until_us is None else until_us
    since = until - (window_us or spec.watch.window // timedelta(microseconds=1))
    refs = pinned_plan(package).services[0].features
    names = [ref.label for ref in refs]
    scores = ServedScores(
        state=project.state,
        connection=project.connection,
        model=model,
        version=package.version,
        since_us=since,
        until_us=until,
    )
    measures = measure_window(
        package,
        scores,
        labelled=labelled_log(project, model),
        known_by_us=project.clock.now_us(),
        engine=project.engine,
    )
    columns = compare_window(
        package.profile,
        names,
        measures.counts,
        measures.labels,
        spec.watch,
        {ref.label: measures.repeats.get(ref.group, 1.0) for ref in refs},
    )
    report = DriftReport(
        model=model,
        version=package.version,
        since_us=since,
        until_us=until,
        rows=measures.counts.rows,
        watch=spec.watch,
        features=[columns[name] for name in names],
        score=columns.get(SCORE),
        label=columns.get(LABEL),
    )
    return report, describe_distributions(package.profile, names, measures.counts)


def drift_reports(project: Workspace, model: str, most: int | None = None) -> list[dict[str, Any]]:
    """Return all or the latest stored reports of a model, oldest first, each as ``DriftReport.as_dict``."""
    return [report for _, report in _drift_records(project).read_latest_first(model, most)][::-1]


def latest_drift(project: Workspace, model: str) -> dict[str, Any] | None:
    """Return the report of the latest window; None: there is none."""
    latest = _drift_records(project).latest(model)
    return None if latest is None else latest[1]


def latest_distributions(project: Workspace, model: str) -> dict[str, Any] | None:
    """Return the distributions of a model's features in the latest window, with its version and end; None: unknown.

    ``features`` is as ``skewless.validation.drift.verdicts.describe_distributions`` returns it.
    """
    body = _distributions(project).get(model)
    return body if isinstance(body, dict) else None


def _distributions(project: Workspace) -> Documents:
    return Documents(project.state.database, "drift_distributions")


def _drift_records(project: Workspace) -> Records:
    return Records(project.state.database, "drift_check")


def _update_alerts(project: Workspace, report: DriftReport) -> None:
    from skewless.infra.platform.alerts.alerts import Alert, Alerts

    evidence = {"version": report.version, "share": report.share, "features": report.drifted, "rows": report.rows}
    with Alerts(project.state, project.settings.alert_webhook) as alerts:
        for name, is_firing in ((ALERT, report.verdict == "drifted"), (MOVED, bool(report.moved))):
            if is_firing:
                alerts.send(
                    Alert(
                        name=name,
                        severity="warning",
                        subject=report.model,
                        message=report.sentence(),
                        at_us=report.until_us,
                        evidence=evidence | {"moved": report.moved},
                    )
                )
            # Too few rows show nothing, so an open alert stays open.
            elif report.verdict != "too_few_rows":
                alerts.resolve(name, report.model, report.until_us)
