"""``skewless backfill``: window states, built from the log."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import UNCHANGED, DryRun, Engine, Json, Repo, open_project
from skewless.commands.output import command_output, table

Views = Annotated[list[str] | None, typer.Argument(metavar="VIEW", help="Windowed views; default: all.")]


def backfill(
    views: Views = None,
    *,
    repo: Repo = Path(),
    engine: Engine = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Build the states of windowed views from the log, and switch servers to them.

    Servers read the current states until the new ones are complete. The stream continues meanwhile.
    """
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo, engine=engine)
        with output.progress("reading the log") as on_progress:
            results = project.backfill(
                views or (), dry_run=dry_run, on_rows=lambda view, done: on_progress(view, done or 0, None)
            )
        bodies = [asdict(result) for result in results]
        part = table(
            "would be built" if dry_run else "built from the log",
            ("view", "generation", "states", "events"),
            [
                (body["view"], body["generation"] and str(body["generation"]), body["states"], body["events"])
                for body in bodies
            ],
            sums=("states", "events"),
        )
        output.show({"dry_run": dry_run, "views": bodies}, part, *([UNCHANGED] if dry_run else []))
