"""``skewless feedback``: outcomes of predictions, from a table into the outcome log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import command_output

OutcomeFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="Parquet, CSV or JSON lines with an outcome per row.")
]
ModelName = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="Model of a table that has keys instead of prediction ids."),
]


def feedback(
    file: OutcomeFile,
    *,
    model: ModelName = None,
    dry_run: DryRun = False,
    repo: Repo = Path(),
    as_json: Json = False,
) -> None:
    """Record outcomes of predictions in the outcome log; an invalid row rejects the file."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working(f"reading {file}"):
            report = project.feedback(file, model=model, dry_run=dry_run)
        counts = ", ".join(f"{n:,} {kind}{'s' * (n != 1)}" for kind, n in report.kinds.items())
        result = "would be appended" if dry_run else "appended"
        output.show({"dry_run": dry_run, **report.as_dict()}, f"{counts} {result}")
