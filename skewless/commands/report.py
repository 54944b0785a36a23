"""``skewless report``: everything that is known of the models in use, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering

Models = Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models; none: all of the plan.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="The HTML file; none: report.html in the state folder.")
]


def report(models: Models = None, *, out: Out = None, repo: Repo = Path(), as_json: Json = False) -> None:
    """Write versions, decisions, quality, drift, freshness and proofs with plots into one HTML file."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("gathering the report"):
            written = project.report(models or (), out=out)
        output.answer(written.as_dict(), f"wrote {written.file}")
