"""``skewless materialize``: new source rows, written to the accepted log and the online store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import UNCHANGED, DryRun, Engine, Json, Repo, open_project
from skewless.commands.output import Output, command_output, table

if TYPE_CHECKING:
    from skewless.project import Project

NoCheck = Annotated[bool, typer.Option("--no-check", help="Accept new rows without a check of their suites.")]


def materialize(
    *,
    repo: Repo = Path(),
    no_check: NoCheck = False,
    engine: Engine = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Append new source rows to the log, and write the latest row of each entity to the online store."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo, engine=engine)
        if dry_run:
            _show_pending(project, output)
        else:
            _run(project, output, check=not no_check)


def _show_pending(project: Project, output: Output) -> None:
    with output.working("comparing the sources with the log"):
        views = [asdict(pending) for pending in project.pending()]
    columns = ("view", "accepted", "rejected", "entities")
    part = table("would be accepted", columns, [tuple(view.values()) for view in views], sums=columns[1:])
    output.show({"dry_run": True, "views": views}, part, UNCHANGED)


def _run(project: Project, output: Output, *, check: bool) -> None:
    from skewless.infra.materialization.run_report import totals

    with output.progress("materializing") as on_progress:
        reports = project.materialize(
            check=check, on_step=lambda step: on_progress(f"{step.view}: {step.doing}", step.done, step.total)
        )
    views, sums = [asdict(report) for report in reports], totals(reports)
    rows = [(view["view"], *(view[name] for name in sums)) for view in views]
    columns = [name.replace("_", " ") for name in sums]
    part = table("rows", ("view", *columns), rows, sums=columns)
    stale = [f"{report.view} was not updated: {report.problem}" for report in reports if report.problem]
    reasons = [(report.view, reason, n) for report in reports for reason, n in report.left_out.items()]
    skipped = [table("rows skipped by the online store", ("view", "reason", "rows"), reasons)] if reasons else []
    output.show({"dry_run": False, "views": views, "totals": dict(sums)}, part, *skipped, *stale)
