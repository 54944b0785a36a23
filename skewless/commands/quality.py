"""``skewless quality``: the quality of a model's versions on predictions with known outcomes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skewless.commands.length import parse_length
from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Part, command_output, table
from skewless.contract.clock import parse_time
from skewless.contract.errors import RequestError
from skewless.contract.render import count_text
from skewless.operations.readable import time_text

if TYPE_CHECKING:
    from skewless.operations.quality import QualityReport
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

Name = Annotated[str | None, typer.Argument(metavar="MODEL", help="Name of a model; default: the only one.")]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Time of the first prediction: ISO 8601 with a zone, or an age (30d)."
    ),
]
Window = Annotated[
    str | None, typer.Option("--window", metavar="LENGTH", help="Length of the windows: 12h, 7d; default: the model's.")
]


def quality(
    model: Name = None, *, since: Since = None, window: Window = None, repo: Repo = Path(), as_json: Json = False
) -> None:
    """Show the quality of each version: live, estimated without labels, and at training."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        since_us = None if since is None else _parse_since(since, project.clock.now_us())
        window_us = None if window is None else parse_length(window)
        with output.working("joining predictions with outcomes"):
            report = project.quality(model, since_us=since_us, window_us=window_us)
        output.show(report.as_dict(), *_parts(report))


def _parts(report: QualityReport) -> list[Part]:
    counts = report.outcomes
    title = f"{report.model}: {report.metric}, {time_text(report.whole.since_us)} to now"
    feedback = (
        f"feedback: {count_text(counts.rows, 'row')} of {count_text(counts.subjects, 'prediction')}, "
        f"{count_text(counts.duplicates, 'duplicate')}, "
        f"{count_text(counts.corrections, 'correction')}, {count_text(counts.contradictions, 'contradiction')}, "
        f"{count_text(counts.retractions, 'retraction')}, {counts.late:,} late"
    )
    rows = [("all", *_row(report, item)) for item in report.whole.versions]
    rows += [(time_text(window.since_us), *_row(report, item)) for window in report.windows for item in window.versions]
    return [table(title, ("from", *COLUMNS), rows), feedback]


def _row(report: QualityReport, item: Quality) -> tuple[Any, ...]:
    trained = report.trained.get(item.version, {})
    return (
        item.version,
        item.predictions,
        f"{item.maturity:.0%}",
        item.labelled,
        f"{item.coverage:.0%}",
        item.metric(report.metric),
        _interval_text(item.interval),
        None if item.estimated is None else item.estimated.get(report.metric),
        trained.get(report.metric),
        item.value,
    )


def _interval_text(interval: Interval | None) -> str | None:
    return None if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"


def _parse_since(text: str, now_us: int) -> int:
    with suppress(RequestError):
        return now_us - parse_length(text)
    parsed = parse_time(text)
    if parsed is None or not parsed[1]:
        fix = "give 2026-01-31T00:00Z or 30d"
        raise RequestError("option --since", "is not a time with a zone, and not an age", value=text, fix=fix)
    return parsed[0]
