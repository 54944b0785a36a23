"""``skewless track``: trained versions and aliases, published to MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import command_output

Models = Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="Models; default: all trained models.")]


def track(models: Models = None, *, dry_run: DryRun = False, repo: Repo = Path(), as_json: Json = False) -> None:
    """Publish to MLflow the trained versions that it lacks, and copy the aliases."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("publishing"):
            reports = project.track(models or (), dry_run=dry_run)
        body = {"dry_run": dry_run, "models": [report.as_dict() for report in reports]}
        output.show(body, *([report.line() for report in reports] or ["no model is trained yet"]))
