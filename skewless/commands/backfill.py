"""``skewless bootstrap``: the online states of windowed views, built from the log."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import answering, table

Views = Annotated[list[str] | None, typer.Argument(metavar="[VIEW]...", help="Windowed views; none: all.")]


def bootstrap(views: Views = None, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Build the online states of windowed views from the log, beside those that are read, and switch to them."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.progress("reading the log") as bar:
            built = project.bootstrap(
                views or (), dry_run=dry_run, on_rows=lambda view, done: bar(view, done or 0, None)
            )
        rows = [asdict(view) for view in built]
        shown = table(
            "would be built" if dry_run else "built from the log",
            ("view", "generation", "states", "events"),
            [tuple(row.values()) for row in rows],
        )
        output.answer({"dry_run": dry_run, "views": rows}, shown, *(["nothing was changed"] if dry_run else []))
