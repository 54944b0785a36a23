"""``skewless drift``: live features, scores and labels against training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.cells import StateCell
from skewless.commands.length import parse_length
from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import Part, command_output, table
from skewless.contract.errors import GateError
from skewless.contract.render import count_text
from skewless.operations.readable import time_text

if TYPE_CHECKING:
    from skewless.validation.drift.verdicts import ColumnDrift, DriftReport

Name = Annotated[str | None, typer.Argument(metavar="MODEL", help="Name of a model; default: the only one.")]
Window = Annotated[
    str | None,
    typer.Option("--window", metavar="LENGTH", help="Length of the window until now: 12h, 7d; default: the model's."),
]
Check = Annotated[bool, typer.Option("--check", help="Exit with code 5 if the model has drifted.")]
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
    """Compare live features, scores and labels with training; store the result and send an alert."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        window_us = None if window is None else parse_length(window)
        with output.working("comparing live predictions with training"):
            report = project.drift(model, window_us=window_us, dry_run=dry_run)
        output.show(report.as_dict(), *_parts(report))
        if check and report.verdict == "drifted":
            raise typer.Exit(GateError.exit_code)


def _parts(report: DriftReport) -> list[Part]:
    since, until = time_text(report.since_us), time_text(report.until_us)
    title = f"{report.model} {report.version}, {since} to {until}, {count_text(report.rows, 'prediction')}"
    columns = [column for column in (*report.features, report.score, report.label) if column is not None]
    verdict = StateCell(report.verdict.replace("_", " "), "warning" if report.verdict == "drifted" else "plain")
    return [table(title, _COLUMNS, [_row(column) for column in columns], state=verdict), report.sentence()]


def _row(column: ColumnDrift) -> tuple[object, ...]:
    body = column.as_dict()
    distance, limit = body["distances"]["psi"], body["limits"]["psi"]
    drifted = StateCell("yes", "warning") if column.drifted else "no"
    return (column.name, distance, limit, column.p, *body["null_share"], body["new_share"], drifted)
