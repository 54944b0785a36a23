"""``skewless import``: the history of event sources to the accepted log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import Output, answering, table

if TYPE_CHECKING:
    from skewless.infra.streams.importing import ImportResult

_HINTS = {
    "applied": "they count as known from now on: training in knowledge time does not see them before",
    "none": "`skewless bootstrap` brings them to the online states",
    "behind": "the online store is away: `skewless stream` applies them when it is back, and so does the next import",
}
Sources = Annotated[list[str] | None, typer.Argument(metavar="[SOURCE]...", help="Event sources; none: all.")]


def import_events(
    sources: Sources = None, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Append events from before the stream, from the files of each source's batch_source, to the log."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.progress("importing") as bar:
            reports = project.import_events(
                sources or (), dry_run=dry_run, on_rows=lambda file, rows: bar(file, rows, None)
            )
        if dry_run:
            _show_files(output, reports)
        else:
            _show_sources(output, reports)


def _show_sources(output: Output, reports: Sequence[ImportResult]) -> None:
    done = [report.as_dict() for report in reports]
    columns = ("source", "files", "accepted", "rejected", "duplicates", "present", "states")
    shown = table("events", columns, [tuple(item.values()) for item in done])
    hints = [
        _HINTS[states]
        for states in _HINTS
        if any(item["states"] == states and (item["files"] or states == "behind") for item in done)
    ]
    output.answer({"dry_run": False, "sources": done}, shown, *hints)


def _show_files(output: Output, reports: Sequence[ImportResult]) -> None:
    files = [{"source": report.source, **asdict(file)} for report in reports for file in report.by_file]
    columns = ("source", "file", "accepted", "rejected", "duplicates", "present")
    shown = table("would be imported", columns, [tuple(item.values()) for item in files])
    output.answer({"dry_run": True, "files": files}, shown, "nothing was changed")
