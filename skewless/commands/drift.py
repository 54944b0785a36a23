"""``skewless drift``: how far what is asked and answered has moved from what a model was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.length import parse_length
from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import answering, table
from skewless.contract.errors import GateError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.validation.drift.report import DriftReport
    from skewless.validation.drift.verdicts import ColumnDrift

Name = Annotated[str | None, typer.Argument(metavar="MODEL", help="Name of the model; none: the only one.")]
Window = Annotated[
    str | None,
    typer.Option("--window", metavar="LENGTH", help="Length of the window up to now: 12h, 7d; none: the model's."),
]
Check = Annotated[bool, typer.Option("--check", help="Exit 5 if the model has drifted.")]
_COLUMNS = ("feature", "psi", "limit", "p", "nulls trained", "nulls live", "new values", "drifted")


def drift(
    model: Name = None,
    *,
    window: Window = None,
    check: Check = False,
    repo: Repo = Path(),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Compare live features, scores and labels with training; keep what is found, and alert."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        window_us = None if window is None else parse_length(window)
        with output.working("comparing live predictions with training"):
            report = project.drift(model, window_us=window_us, dry_run=dry_run)
        output.answer(report.as_dict(), *_shown(report))
        if check and report.verdict == "drifted":
            raise typer.Exit(GateError.exit_code)


def _shown(report: DriftReport) -> list[RenderableType]:
    body = report.as_dict()
    title = (
        f"{report.model} {report.version}, {body['since'][:16]} to {body['until'][:16]}: {report.rows:,} predictions"
    )
    columns = [column for column in (*report.features, report.score, report.label) if column is not None]
    return [table(title, _COLUMNS, [_row(column) for column in columns]), f"{report.verdict}: {report.sentence()}"]


def _row(column: ColumnDrift) -> tuple[object, ...]:
    found = column.as_dict()
    nulls = found["null_share"]
    distance, limit = found["distances"]["psi"], found["limits"]["psi"]
    return (column.name, distance, limit, column.p, *nulls, found["new_share"], column.drifted)
