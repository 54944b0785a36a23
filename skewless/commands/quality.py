"""``skewless quality``: how good a model's versions are on what they were asked, as far as outcomes are known."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skewless.commands.length import parse_length
from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table
from skewless.contract.clock import parse_time
from skewless.contract.errors import RequestError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.operations.quality import QualityReport, QualityWindow
    from skewless.validation.evaluation.interval import Interval
    from skewless.validation.live_quality import Quality

COLUMNS = (
    "version",
    "predictions",
    "mature",
    "labelled",
    "coverage",
    "live",
    "95 %",
    "estimated",
    "training",
    "value",
)

Name = Annotated[str | None, typer.Argument(metavar="MODEL", help="Name of the model; none: the only one.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Earliest prediction: ISO 8601 with a zone, or an age (30d)."),
]
Window = Annotated[
    str | None, typer.Option("--window", metavar="LENGTH", help="Length of the windows: 12h, 7d; none: the model's.")
]


def quality(
    model: Name = None, *, since: Since = None, window: Window = None, repo: Repo = Path(), as_json: Json = False
) -> None:
    """Show quality by version: live, estimated before labels came, and of training."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        since_us = None if since is None else _moment(since, project.clock.now_us())
        window_us = None if window is None else parse_length(window)
        with output.working("joining predictions with outcomes"):
            report = project.quality(model, since_us=since_us, window_us=window_us)
        output.answer(report.as_dict(), *_parts(report))


def _parts(report: QualityReport) -> list[RenderableType]:
    counts = report.outcomes
    title = f"{report.model}: {report.metric}, {report.whole.as_dict()['since'][:16]} to now"
    said = (
        f"feedback: {counts.rows:,} rows of {counts.subjects:,} predictions, {counts.duplicates:,} duplicates, "
        f"{counts.corrections:,} corrections, {counts.contradictions:,} contradictions, "
        f"{counts.retractions:,} retractions, {counts.late:,} late"
    )
    rows = [("", *_row(report, found)) for found in report.whole.versions]
    parts = [(_begin(window), *_row(report, found)) for window in report.windows for found in window.versions]
    return [table(title, ("from", *COLUMNS), [*rows, *parts]), said]


def _begin(window: QualityWindow) -> str:
    return str(window.as_dict()["since"])[:16]


def _row(report: QualityReport, found: Quality) -> tuple[Any, ...]:
    trained = report.trained.get(found.version, {})
    return (
        found.version,
        found.predictions,
        f"{found.maturity:.0%}",
        found.labelled,
        f"{found.coverage:.0%}",
        found.metric(report.metric),
        _shown(found.interval),
        None if found.estimated is None else found.estimated.get(report.metric),
        trained.get(report.metric),
        found.value,
    )


def _shown(interval: Interval | None) -> str | None:
    return None if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"


def _moment(text: str, now_us: int) -> int:
    with suppress(RequestError):
        return now_us - parse_length(text)
    found = parse_time(text)
    if found is None or not found[1]:
        fix = "give 2026-01-31T00:00Z or 30d"
        raise RequestError("option --since", "is no time with a zone, and no age", value=text, fix=fix)
    return found[0]
