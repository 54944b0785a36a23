"""``skewless init``: a new project from a template."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo
from skewless.commands.output import command_output, table

_ROW = '{"card_id": 9007199254740993, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}'
_NEXT = ("apply", "validate", "materialize", "train", f"predict --row {shlex.quote(_ROW)}", "replay", "serve")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder, relative to --repo.")]


def init(folder: Folder = Path(), *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Write a small working project to a new folder: definitions, a model, expectations and sample data."""
    with command_output(as_json=as_json) as output:
        from skewless.project import Project

        report = Project.init(repo / folder, template=template, dry_run=dry_run)
        title = f"project {report.project!r} {'would be' if dry_run else 'is'} in {report.folder}"
        rows = [(file, report.rows.get(file.removeprefix("data/"))) for file in report.files]
        commands = [f"skewless {name} --repo {shlex.quote(str(report.folder))}" for name in _NEXT]
        part = table(title, ("file", "rows"), rows)
        output.show({**report.as_dict(), "next": commands}, part, "next:", *(f"  {line}" for line in commands))
