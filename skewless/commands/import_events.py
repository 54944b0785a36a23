"""``skewless import``: the history of event sources, appended to the accepted log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import UNCHANGED, DryRun, Json, Repo, open_project
from skewless.commands.output import Output, command_output, table

if TYPE_CHECKING:
    from skewless.infra.streams.importing import ImportResult

_HINTS = {
    "applied": "these events count as known from now on: training in knowledge time does not see them before",
    "none": "`skewless stream` or `skewless backfill` builds window states from them",
    "behind": "the online store is unavailable: `skewless stream` or the next import applies them later",
}
_COUNTS = ("accepted", "rejected", "duplicates", "present")
Sources = Annotated[list[str] | None, typer.Argument(metavar="SOURCE", help="Event sources; default: all.")]


def import_events(
    sources: Sources = None, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Append the history of event sources, from the files of their batch_source, to the log."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.progress("importing") as on_progress:
            reports = project.import_events(
                sources or (), dry_run=dry_run, on_rows=lambda file, rows: on_progress(file, rows, None)
            )
        if dry_run:
            _show_files(output, reports)
        else:
            _show_sources(output, reports)


def _show_sources(output: Output, reports: Sequence[ImportResult]) -> None:
    bodies = [report.as_dict() for report in reports]
    columns = ("source", "files", *_COUNTS, "states")
    part = table("events", columns, [tuple(body.values()) for body in bodies], sums=("files", *_COUNTS))
    hints = [
        hint
        for states, hint in _HINTS.items()
        if any(body["states"] == states and (body["files"] or states == "behind") for body in bodies)
    ]
    output.show({"dry_run": False, "sources": bodies}, part, *hints)


def _show_files(output: Output, reports: Sequence[ImportResult]) -> None:
    files = [{"source": report.source, **asdict(file)} for report in reports for file in report.by_file]
    columns = ("source", "file", *_COUNTS)
    part = table("would be imported", columns, [tuple(file.values()) for file in files], sums=_COUNTS)
    output.show({"dry_run": True, "files": files}, part, UNCHANGED)
