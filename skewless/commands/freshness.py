"""``skewless freshness``: the age of the latest data of each view."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from skewless.commands.cells import StateCell
from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import command_output, table
from skewless.contract.errors import GateError
from skewless.operations.readable import duration_text, time_text

Views = Annotated[list[str] | None, typer.Argument(metavar="VIEW", help="Views of any kind; default: all.")]
Check = Annotated[bool, typer.Option("--check", help="Exit with code 5 if a view is late.")]
_COLUMNS = ("view", "latest event", "age", "watermark age", "allowed", "rows read", "stale", "late")


def freshness(views: Views = None, *, check: Check = False, repo: Repo = Path(), as_json: Json = False) -> None:
    """Compare the age of each view with its tag skewless.freshness, and check the processes of the project.

    The result is stored. A view that is late, and a process that does not respond, open an alert.
    """
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("reading the latest events"):
            report = project.freshness(views or ())
        bodies = [item.as_dict() for item in report]
        output.show({"views": bodies}, table("views", _COLUMNS, [_row(body) for body in bodies]))
        if check and any(item.is_late for item in report):
            raise typer.Exit(GateError.exit_code)


def _row(body: Mapping[str, Any]) -> list[object]:
    view, latest, age_s, watermark_age_s, limit_s, sampled, stale, late = body.values()
    ages = [None if seconds is None else duration_text(seconds) for seconds in (age_s, watermark_age_s, limit_s)]
    return [view, time_text(latest), *ages, sampled, stale, StateCell("late") if late else "no"]
