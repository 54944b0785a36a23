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
    with output.working("comparing the sources with the log"):
        views = [asdict(pending) for pending in project.pending()]
    columns = ("view", "accepted", "rejected", "entities")
    shown = table("would be accepted now", columns, [tuple(view.values()) for view in views])
    output.answer({"dry_run": True, "views": views}, shown, "nothing was changed")


def _run(project: Project, output: Output, *, check: bool) -> None:
    from skewless.infra.materialization.run_report import totals

    with output.progress("materialising") as bar:
        reports = project.materialize(
            check=check, on_step=lambda step: bar(f"{step.view}: {step.doing}", step.done, step.total)
        )
    views, sums = [asdict(report) for report in reports], totals(reports)
    rows = [(view["view"], *(view[name] for name in sums)) for view in views]
    shown = table("rows", ("view", *sums), [*rows, ("all", *sums.values())])
    unfed = [f"{report.view} is not fed: {report.problem}" for report in reports if report.problem]
    reasons = [(report.view, reason, n) for report in reports for reason, n in report.left_out.items()]
    left_out = [table("rows left out of the online store", ("view", "reason", "rows"), reasons)] if reasons else []
    output.answer({"dry_run": False, "views": views, "totals": dict(sums)}, shown, *left_out, *unfed)
