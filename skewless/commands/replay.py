"""``skewless replay``: the proof that what was served is what the accepted log says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import Json, Model, Repo, open_project
from skewless.commands.output import answering
from skewless.contract.errors import GateError

New = Annotated[bool, typer.Option("--new", help="Leave out log files that such a replay has proven.")]


def replay(model: Model = None, *, new: New = False, repo: Repo = Path(), as_json: Json = False) -> None:
    """Recompute every logged prediction from the accepted log, without Redis; exit 5 if a bit differs."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("replaying the prediction log"):
            report = project.replay(model, new=new)
        output.answer({"ok": report.ok, **report.as_dict()}, *report.lines())
        if not report.ok:
            raise typer.Exit(GateError.exit_code)
