"""Commands on live models and data: quality, drift, freshness, alerts, explanation and proofs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from skewless.commands.cells import StateCell
from skewless.commands.command import (
    DryRun,
    Model,
    OnlyModel,
    Seed,
    Views,
    command,
    fail_if,
    option,
    parse_length,
)
from skewless.commands.output import Part, Session, records_table
from skewless.commands.tables import TextTable
from skewless.contract.clock import parse_time
from skewless.contract.errors import RequestError
from skewless.contract.readable import time_text
from skewless.contract.render import count_text

if TYPE_CHECKING:
    from skewless.operations.models.quality import QualityReport
    from skewless.validation.drift.verdicts import ColumnDrift, DriftReport
    from skewless.validation.live_quality import Quality
    from skewless.validation.parity_report import ParityReport
    from skewless.validation.replay_report import ReplayReport

COLUMNS = ("version", "predictions", "mature", "labelled", "coverage", "live", "95 %", "estimated", "training", "value")
_DRIFT_COLUMNS = ("feature", "psi", "limit", "p", "nulls trained", "nulls live", "new values", "drifted")
_ALERT_COLUMNS = ("number", "alert", "severity", "subject", "since", "resolved", "message")
Since = Annotated[
    str | None, option("--since TIME", "Time of the first prediction: ISO 8601 with a zone, or an age (30d).")
]
Window = Annotated[str | None, option("--window LENGTH", "Length of the windows: 12h, 7d; default: the model's.")]
DriftWindow = Annotated[
    str | None, option("--window LENGTH", "Length of the window until now: 12h, 7d; default: the model's.")
]
DriftCheck = Annotated[bool, option("--check", "Exit with code 5 if the model has drifted.")]
LateCheck = Annotated[bool, option("--check", "Exit with code 5 if a view is late.")]
All = Annotated[bool, option("--all", "List resolved alerts too.")]
Resolve = Annotated[int | None, option("--resolve NUMBER", "Resolve this alert; it opens again if its cause returns.")]


@command("Show the live quality of each version.", "fraud --repo my-project", "fraud --since 60d --window 7d --json")
def quality(session: Session, model: OnlyModel = None, *, since: Since = None, window: Window = None) -> None:
    """Show the quality of each version: live, estimated without labels, and at training."""
    project = session.project
    since_us = None if since is None else _parse_since(since, project.clock.now_us())
    window_us = None if window is None else parse_length(window)
    with session.working("joining predictions with outcomes"):
        report = project.quality(model, since_us=since_us, window_us=window_us)
    session.show(report.as_dict(), *_quality_parts(report))


def _quality_parts(report: QualityReport) -> list[Part]:
    counts = report.outcomes
    title = f"{report.model}: {report.metric}, {time_text(report.whole.since_us)} to now"
    feedback = (
        f"feedback: {count_text(counts.rows, 'row')} of {count_text(counts.subjects, 'prediction')}, "
        f"{count_text(counts.duplicates, 'duplicate')}, "
        f"{count_text(counts.corrections, 'correction')}, {count_text(counts.contradictions, 'contradiction')}, "
        f"{count_text(counts.retractions, 'retraction')}, {counts.late:,} late"
    )
    rows = [("all", *_quality_row(report, item)) for item in report.whole.versions]
    rows += [
        (time_text(window.since_us), *_quality_row(report, item))
        for window in report.windows
        for item in window.versions
    ]
    return [TextTable(title, ("from", *COLUMNS), rows), feedback]


def _quality_row(report: QualityReport, item: Quality) -> tuple[Any, ...]:
    trained = report.trained.get(item.version, {})
    return (
        item.version,
        item.predictions,
        f"{item.maturity:.0%}",
        item.labelled,
        f"{item.coverage:.0%}",
        item.metric(report.metric),
        None if item.interval is None else f"{item.interval.low:.4f} to {item.interval.high:.4f}",
        None if item.estimated is None else item.estimated.get(report.metric),
        trained.get(report.metric),
        item.value,
    )


def _parse_since(text: str, now_us: int) -> int:
    with suppress(RequestError):
        return now_us - parse_length(text)
    parsed = parse_time(text)
    if parsed is None or not parsed[1]:
        fix = "give 2026-01-31T00:00Z or 30d"
        raise RequestError("option --since", "is not a time with a zone, and not an age", value=text, fix=fix)
    return parsed[0]


@command(
    "Compare live features, scores and labels with training.",
    "--repo my-project",
    "fraud --window 12h --check --json",
    has_engine=True,
)
def drift(
    session: Session,
    model: OnlyModel = None,
    *,
    window: DriftWindow = None,
    check: DriftCheck = False,
    dry_run: DryRun = False,
) -> None:
    """Compare live features, scores and labels with training; store the result and send an alert."""
    project = session.project
    window_us = None if window is None else parse_length(window)
    with session.progress("comparing live predictions with training") as project.on_progress:
        report = project.drift(model, window_us=window_us, dry_run=dry_run)
    session.show(report.as_dict(), *_drift_parts(report))
    fail_if(check and report.verdict == "drifted")


def _drift_parts(report: DriftReport) -> list[Part]:
    since, until = time_text(report.since_us), time_text(report.until_us)
    title = f"{report.model} {report.version}, {since} to {until}, {count_text(report.rows, 'prediction')}"
    columns = [column for column in (*report.features, report.score, report.label) if column is not None]
    verdict = StateCell(report.verdict.replace("_", " "), "warning" if report.verdict == "drifted" else "plain")
    return [
        TextTable(title, _DRIFT_COLUMNS, [_drift_row(column) for column in columns], state=verdict),
        report.sentence(),
    ]


def _drift_row(column: ColumnDrift) -> tuple[object, ...]:
    body = column.as_dict()
    distance, limit = body["distances"]["psi"], body["limits"]["psi"]
    drifted = StateCell("yes", "warning") if column.drifted else "no"
    return (column.name, distance, limit, column.p, *body["null_share"], body["new_share"], drifted)


@command("Show the age of the latest data of each view.", "--repo my-project", "card_days --check --json")
def freshness(session: Session, views: Views = None, *, check: LateCheck = False) -> None:
    """Compare the age of each view with its tag skewless.freshness, and check the processes of the project.

    The result is stored. A view that is late, and a process that does not respond, open an alert.
    """
    with session.working("reading the latest events") as project:
        report = project.freshness(views or ())
    bodies = [item.as_dict() for item in report]
    session.show({"views": bodies}, records_table("views", bodies))
    fail_if(check and any(item.is_late for item in report))


@command("List open alerts, or resolve one.", "--repo my-project", "--all --json")
def alerts(session: Session, *, show_all: All = False, resolve: Resolve = None) -> None:
    """List open alerts, or resolve one."""
    bodies = [item.as_dict() for item in session.project.alerts(show_all=show_all, resolve=resolve)]
    part = records_table("alerts", bodies, _ALERT_COLUMNS)
    session.show({"alerts": bodies}, part if bodies else "no alert is open")


New = Annotated[bool, option("--new", "Skip log files that an earlier replay has proven.")]
Entities = Annotated[int, option("--sample N", "Number of entities of each view.", min=1)]
Repair = Annotated[bool, option("--repair", "Repair mismatches from the log.")]


@command(
    "Recompute logged predictions and compare them bit for bit.", "--repo my-project", "--new --json", has_engine=True
)
def replay(session: Session, model: Model = None, *, new: New = False) -> None:
    """Recompute logged predictions from the accepted log, without Redis; exit with code 5 if a bit differs."""
    project = session.project
    with session.progress("replaying the prediction log") as project.on_progress:
        report = project.replay(model, new=new)
    _show_verdict(session, report)


@command(
    "Compare the online store with the log.",
    "--repo my-project",
    "carrier_now --sample 5000 --repair --json",
    has_engine=True,
)
def parity(
    session: Session, views: Views = None, *, sample: Entities = 1_000, seed: Seed = 0, repair: Repair = False
) -> None:
    """Compare the online store with the log, for a sample of entities; exit with code 5 if a bit differs."""
    project = session.project
    with session.progress("comparing the online store with the log") as project.on_progress:
        report = project.parity(views or (), sample=sample, seed=seed, repair=repair)
    _show_verdict(session, report)


def _show_verdict(session: Session, report: ReplayReport | ParityReport) -> None:
    """Show the lines of a report, with the tone of its verdict on the first."""
    first, *lines = report.lines()
    session.show({"ok": report.ok, **report.as_dict()}, StateCell(first, "good" if report.ok else "bad"), *lines)
    fail_if(not report.ok)
