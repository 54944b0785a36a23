"""``skewless feedback``: outcomes of predictions from a table into the outcome log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import answering

Source = Annotated[Path, typer.Argument(metavar="FILE", help="Parquet, CSV or JSON lines, one outcome a row.")]
Asked = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="Model of a table that has keys in place of prediction ids."),
]


def feedback(
    file: Source, *, model: Asked = None, dry_run: DryRun = False, repo: Repo = Path(), as_json: Json = False
) -> None:
    """Append outcomes to the outcome log; a row that is wrong refuses the file."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working(f"reading {file}"):
            report = project.feedback(file, model=model, dry_run=dry_run)
        counted = ", ".join(f"{n:,} {kind}{'s' * (n != 1)}" for kind, n in report.kinds.items())
        done = "would be appended" if dry_run else "appended"
        output.answer({"dry_run": dry_run, **report.as_dict()}, f"{counted} {done}")
