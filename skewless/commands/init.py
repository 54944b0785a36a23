"""``skewless init``: a new project from a template."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo
from skewless.commands.output import command_output, table
from skewless.operations.init import TemplateName

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder, relative to --repo.")]
Template = Annotated[
    TemplateName,
    typer.Option(
        help="fraud: a stream, windows, two models, a rollout; delay: windows, a regression; churn: tables, one model;"
        " empty: files without definitions or data."
    ),
]


def init(
    folder: Folder = Path(),
    *,
    template: Template = "fraud",
    repo: Repo = Path(),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Write a new project from a template: definitions, tests, models, expectations and sample data."""
    with command_output(as_json=as_json) as output:
        from skewless.project import Project

        report = Project.init(repo / folder, template=template, dry_run=dry_run)
        title = f"project {report.project!r} {'would be' if dry_run else 'is'} in {report.folder}"
        rows = [(file, report.rows.get(file.removeprefix("data/"))) for file in report.files]
        commands = report.next_commands
        part = table(title, ("file", "rows"), rows)
        output.show({**report.as_dict(), "next": commands}, part, "next:", *(f"  {line}" for line in commands))
