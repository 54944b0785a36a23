"""Troubles of a project now: open alerts, silent processes, failed jobs, and the state of this machine.

It measures nothing: checks have raised the alerts, processes send heartbeats, and the ledger has the failed jobs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from skewless.contract.plain_record import PlainRecord
from skewless.contract.render import shorten
from skewless.infra.definitions.plans.applied_plan import AppliedPlan
from skewless.infra.platform.alerts.alerts import Alert, Alerts
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.jobs.run import RunSpan
from skewless.operations.health.checkup.deep import check_disk_share, check_leases, check_spool
from skewless.operations.health.checkup.finding import CheckupFinding
from skewless.operations.health.checkup.project import judge_plan, judge_processes
from skewless.operations.health.status import running_processes
from skewless.workspace import Workspace

Weight = Literal["critical", "warning"]
_RUNBOOKS = "docs/runbooks.md#skewless"
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


@dataclass(frozen=True, kw_only=True)
class Trouble(PlainRecord):
    """Something that is wrong, or may be.

    Args:
        weight: ``critical``: predictions are wrong or fail, or may soon.
        subject: what it concerns, such as ``drift fraud`` or ``server web1 77``.
        cause: the problem, in a clause.
        since_us: microseconds of the project's clock; None: unknown.
        next: the command that shows more, or repairs it.
        runbook: the section to read; empty: none.
        model, view, run: what it is about, for links; empty: none.
        alert: its number; None: it is not an alert.
    """

    weight: Weight
    subject: str
    cause: str
    since_us: int | None
    next: str
    runbook: str = ""
    model: str = ""
    view: str = ""
    run: str = ""
    alert: int | None = None


def read_alert_troubles(project: Workspace) -> list[Trouble]:
    """Return the open alerts, oldest first.

    Raises:
        StoreError: the database is unavailable, or the stored alerts are corrupt.
    """
    with Alerts(project.state) as alerts:  # without a webhook: reading sends nothing
        records = [record for record in alerts.records() if record.is_open]
    return [
        _judge_alert(record.alert, record.since_us, record.number)
        for record in sorted(records, key=lambda record: (record.since_us, record.number))
    ]


def read_process_troubles(project: Workspace, applied: AppliedPlan | None) -> list[Trouble]:
    """Return what the heartbeats and the lease of the scheduler tell.

    Args:
        applied: the applied plan; None: there is none.

    Raises:
        StoreError: the database is unavailable.
    """
    now_us = project.clock.now_us()
    silent = {f"{item.kind} {item.host} {item.pid}": item.silent_s for item in running_processes(project.state)}
    findings = [*judge_processes(project.state, applied), *check_leases(project.state)]

    def since(finding: CheckupFinding) -> int | None:
        seconds = silent.get(finding.name)
        return None if seconds is None or "heartbeat" not in finding.detail else now_us - int(seconds * 1e6)

    return list(_judge_findings(findings, since))


def read_place_troubles(project: Workspace, applied: AppliedPlan | None) -> list[Trouble]:
    """Return what is wrong with the spool and the disk of this machine, and with the definitions.

    Args:
        applied: compared with the definitions; None: it is unknown, or there is none.
    """
    findings = [check_spool(project.state), check_disk_share(project.state.folder)]
    if applied is not None:
        findings.append(judge_plan(project.repo, project.state, applied))
    return list(_judge_findings(findings, lambda _: None))


def read_failed_jobs(project: Workspace) -> list[Trouble]:
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
    troubles = []
    for job, run in sorted(latest.items()):
        done = ledger.latest_span(job, "done")
        if done is None or done.id < run.id:
            troubles.append(_judge_run(run))
    return troubles


def _judge_alert(alert: Alert, since_us: int, number: int) -> Trouble:
    # Subjects and messages come from outside, and may be of any length.
    name, subject = shorten(alert.name, _MOST_CHARS), shorten(alert.subject, _MOST_CHARS)
    command, section = _STEPS.get(name, ("skewless alerts", "alert"))
    if name == "process_silent":
        command, section = _PROCESSES.get(subject.partition(" ")[0], ("skewless status", "alert"))
    return Trouble(
        weight="critical" if alert.severity == "critical" else "warning",
        subject=subject if name == "process_silent" else f"{name} {subject}",
        cause=shorten(alert.message, _MOST_CHARS),
        since_us=since_us,
        next=command.format(subject=shlex.quote(subject)),
        runbook=_RUNBOOKS + section,
        model=subject.partition(" ")[0] if name in _OF_MODELS and subject != "all models" else "",
        view=subject if name in _OF_VIEWS else "",
        alert=number,
    )


def _judge_findings(findings: list[CheckupFinding], since: Callable[[CheckupFinding], int | None]) -> Iterator[Trouble]:
    for finding in findings:
        if finding.verdict == "ok":
            continue
        kind, since_us = finding.name.partition(" ")[0], since(finding)
        command, section = _PROCESSES.get(kind, ("skewless doctor --deep", ""))
        yield Trouble(
            # A silent process, as its alert; without one, something may still work.
            weight="critical" if finding.verdict == "fail" or since_us is not None else "warning",
            subject=finding.name,
            cause=finding.detail,
            since_us=since_us,
            next=finding.fix or command,
            runbook=_RUNBOOKS + section if section else "",
        )


def _judge_run(run: RunSpan) -> Trouble:
    _, _, model = run.id.job.partition(" ")
    return Trouble(
        weight="warning",
        subject=f"job {run.id.job}",
        cause=f"{run.state}: {run.error or 'without an error'}",
        since_us=run.ended_us or run.started_us,
        next=f"skewless runs show {run.id}",
        runbook=f"{_RUNBOOKS}jobfailed",
        model=model,
        run=str(run.id),
    )
