"""``skewless replay``: logged predictions, recomputed from the accepted log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import Engine, Json, Model, Repo, open_project
from skewless.commands.output import command_output, verdict_lines
from skewless.contract.errors import GateError

New = Annotated[bool, typer.Option("--new", help="Skip log files that an earlier replay has proven.")]


def replay(
    model: Model = None,
    *,
    new: New = False,
    repo: Repo = Path(),
    engine: Engine = None,
    as_json: Json = False,
) -> None:
    """Recompute logged predictions from the accepted log, without Redis; exit with code 5 if a bit differs."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo, engine=engine)
        with output.progress("replaying the prediction log") as project.on_progress:
            report = project.replay(model, new=new)
        output.show({"ok": report.ok, **report.as_dict()}, *verdict_lines(report.lines(), ok=report.ok))
        if not report.ok:
            raise typer.Exit(GateError.exit_code)
