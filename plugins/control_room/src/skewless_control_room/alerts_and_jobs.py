"""Open alerts and failed jobs, with the command that shows more and the section of the runbooks."""

from __future__ import annotations

import shlex
from dataclasses import replace

from skewless.contract.render import shorten
from skewless.infra.platform.alerts.alerts import Alert, Alerts
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.jobs.run import RunSpan
from skewless.operations.health.finding import CheckFinding, runbook
from skewless.workspace import Workspace

_WEEK_US = 7 * 86_400_000_000
_MOST_FAILURES = 200
_MOST_CHARS = 300
_FAILURES = ("failed", "lost", "refused")
_OVERLAP = "its last run is still in progress"
# By the name of an alert: the command that shows more, and the section of the runbooks.
_STEPS = {
    "parity": ("skewless parity {subject}", "parity"),
    "freshness": ("skewless freshness", "viewstale"),
    "replay": ("skewless replay --new", "replay"),
    "drift": ("skewless drift {subject}", "drift"),
    "score_or_label_drift": ("skewless drift {subject}", "drift"),
    "rollout": ("skewless versions {subject}", "alert"),
    "model_refused": ("skewless versions {subject}", "modelrefused"),
    "prediction_log": ("skewless doctor --deep", "logdropped"),
}
_PROCESSES = {
    "server": ("skewless serve", "serverdown"),
    "stream": ("skewless stream", "streamdown"),
    "scheduler": ("skewless scheduler", "schedulerwithoutleader"),
}
_OF_MODELS = {"drift", "score_or_label_drift", "rollout", "model_refused", "replay"}
_OF_VIEWS = {"parity", "freshness"}


def check_alerts(project: Workspace) -> list[CheckFinding]:
    """Return the open alerts, oldest first.

    Raises:
        StoreError: the database is unavailable, or the stored alerts are corrupt.
    """
    with Alerts(project.state) as alerts:  # without a webhook: reading sends nothing
        records = [record for record in alerts.records() if record.is_open]
    return [
        replace(_judge_alert(record.alert), since_us=record.since_us, alert=record.number)
        for record in sorted(records, key=lambda record: (record.since_us, record.number))
    ]


def check_jobs(project: Workspace) -> list[CheckFinding]:
    """Return the latest failure of each job in the last seven days, unless the job has been done since.

    Raises:
        StoreError: the database is unavailable.
    """
    ledger, now_us = Ledger(project.state), project.clock.now_us()
    latest: dict[str, RunSpan] = {}
    for state in _FAILURES:
        for run in ledger.read_spans(now_us - _WEEK_US, now_us + 1, state=state, limit=_MOST_FAILURES):
            known = latest.get(run.id.job)
            if run.error != _OVERLAP and (known is None or known.id < run.id):
                latest[run.id.job] = run
    findings = []
    for job, run in sorted(latest.items()):
        done = ledger.latest_span(job, "done")
        if done is None or done.id < run.id:
            findings.append(_judge_run(run))
    return findings


def _judge_alert(alert: Alert) -> CheckFinding:
    # Subjects and messages come from outside, and may be of any length.
    name, subject = shorten(alert.name, _MOST_CHARS), shorten(alert.subject, _MOST_CHARS)
    command, section = _STEPS.get(name, ("skewless alerts", "alert"))
    if name == "process_silent":
        command, section = _PROCESSES.get(subject.partition(" ")[0], ("skewless status", "alert"))
    return CheckFinding(
        name=subject if name == "process_silent" else f"{name} {subject}",
        verdict="fail" if alert.severity == "critical" else "warn",
        detail=shorten(alert.message, _MOST_CHARS),
        fix=command.format(subject=shlex.quote(subject)),
        runbook=runbook(section),
        models=[subject.partition(" ")[0]] if name in _OF_MODELS and subject != "all models" else [],
        views=[subject] if name in _OF_VIEWS else [],
    )


def _judge_run(run: RunSpan) -> CheckFinding:
    _, _, model = run.id.job.partition(" ")
    return CheckFinding(
        name=f"job {run.id.job}",
        verdict="warn",
        detail=f"{run.state}: {run.error or 'without an error'}",
        since_us=run.ended_us or run.started_us,
        fix=f"skewless runs show {run.id}",
        runbook=runbook("jobfailed"),
        models=[model] if model else [],
        run=str(run.id),
    )
