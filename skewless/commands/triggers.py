"""``skewless triggers``: whether a model needs retraining, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Part, command_output, table

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model.")]
Start = Annotated[bool, typer.Option("--start", help="If a trigger fires, request a retraining from the scheduler.")]


def triggers(model: Name, *, start: Start = False, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show whether a model needs retraining, and why, by the triggers of its ModelSpec."""
    with command_output(as_json=as_json) as output:
        report = open_project(output, repo).triggers(model, start=start)
        rows = [(cause.name, cause.sentence) for cause in report.causes]
        part: Part = table(f"{model} needs retraining", ("trigger", "reason"), rows)
        output.show(report.as_dict(), part if rows else f"{model}: no trigger fires")
