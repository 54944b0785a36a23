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
        project = open_project(output, repo)
        from skewless.operations import triggers as operation
        from skewless.operations.runs import retrain

        causes = operation.due(project, model)
        why = "; ".join(cause.sentence for cause in causes)
        asked = str(retrain(project, model, why)) if causes and start else None
        body = {
            "model": model,
            "causes": [cause.as_dict() for cause in causes],
            "asked": asked,
        }
        rows = [(cause.name, cause.sentence) for cause in causes]
        output.answer(body, table(f"{model}: causes to retrain", ("cause", "what was found"), rows))
