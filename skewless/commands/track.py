"""``skewless track``: publishes to MLflow what it lacks of the trained versions, and mirrors the aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import answering

Models = Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models; none: all that were trained.")]


def track(models: Models = None, *, dry_run: DryRun = False, repo: Repo = Path(), as_json: Json = False) -> None:
    """Publish trained versions to the tracking store of the settings; what is there already is left alone."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("publishing"):
            reports = project.track(models or (), dry_run=dry_run)
        body = {"dry_run": dry_run, "models": [report.as_dict() for report in reports]}
        output.answer(body, *([report.line() for report in reports] or ["no model was trained yet"]))
