"""``skewless materialize``: published rows to the accepted log and to the online store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import Output, answering, table

if TYPE_CHECKING:
    from skewless.project import Project

NoCheck = Annotated[bool, typer.Option("--no-check", help="Accept new rows without running their suites.")]


def materialize(
    *, repo: Repo = Path(), no_check: NoCheck = False, dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Accept what is published into the log and apply it to the online store."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        if dry_run:
            _foresee(project, output)
        else:
            _run(project, output, check=not no_check)


def _foresee(project: Project, output: Output) -> None:
    from infra.log.accepted import REJECT

    views = []
    with output.working("comparing the sources with the log"):
        for view, rows in project.pending().items():
            accepted = rows[REJECT].null_count
            views.append({"view": view, "accepted": accepted, "rejected": rows.num_rows - accepted})
    shown = table("would be accepted now", ("view", "accepted", "rejected"), [tuple(view.values()) for view in views])
    output.answer({"dry_run": True, "views": views}, shown, "nothing was changed")


def _run(project: Project, output: Output, *, check: bool) -> None:
    from infra.materialize import totals

    with output.working("materialising"):
        reports = project.materialize(check=check)
    views, sums = [asdict(report) for report in reports], totals(reports)
    rows = [tuple(view.values()) for view in views]
    shown = table("rows", ("view", *sums), [*rows, ("all", *sums.values())])
    output.answer({"dry_run": False, "views": views, "totals": dict(sums)}, shown)
