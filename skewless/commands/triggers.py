"""``skewless triggers``: whether a model must be retrained, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")]
Start = Annotated[bool, typer.Option("--start", help="If there is a cause, ask the scheduler to retrain the model.")]


def triggers(model: Name, *, start: Start = False, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show what asks for a retraining of a model by the triggers of its spec; none: nothing does."""
    with answering(as_json=as_json) as output:
        report = open_project(output, repo).triggers(model, start=start)
        rows = [(cause.name, cause.sentence) for cause in report.causes]
        output.answer(report.as_dict(), table(f"{model}: causes to retrain", ("cause", "what was found"), rows))
