"""``skewless report``: one HTML file about the models and the project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import command_output

Models = Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="Models; default: all of the plan.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="HTML file; default: report.html in the state folder.")
]


def report(models: Models = None, *, out: Out = None, repo: Repo = Path(), as_json: Json = False) -> None:
    """Write an HTML report: versions, decisions, quality, drift, freshness and proofs, with plots."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("writing the report"):
            written = project.report(models or (), out=out)
        output.show(written.as_dict(), f"wrote {written.file}")
