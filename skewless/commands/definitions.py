"""``skewless plan`` and ``skewless apply``: the changes of the definitions, and their application."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.length import length_text
from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import Output, Part, command_output, table
from skewless.contract.errors import GateError
from skewless.contract.render import count_text
from skewless.operations.readable import duration_text

if TYPE_CHECKING:
    from skewless.infra.plans.plan_effects import Build
    from skewless.infra.plans.planning import PlanReport

Check = Annotated[bool, typer.Option("--check", help="Exit with code 5 if `apply` would change anything.")]
_MOST_NAMES = 3


def plan(*, check: Check = False, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show what `apply` would change, and the effects on views and models."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("compiling the definitions"):
            report = project.plan()
        _show(output, report)
        if check and report.changes:
            raise typer.Exit(GateError.exit_code)


def apply(*, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Apply the definitions: update Feast's registry, then the compiled plan."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("compiling the definitions"):
            report = project.apply(dry_run=dry_run)
        _show(output, report)


def _show(output: Output, report: PlanReport) -> None:
    result = "applied" if report.applied else "not applied"
    n = len(report.changes)
    last = f"plan {report.hash}: {n or 'no'} change{'' if n == 1 else 's'}, {result}"
    output.show(report.as_dict(), *_parts(report), *report.notes, last)


def _parts(report: PlanReport) -> Iterator[Part]:
    from skewless.commands.change_text import change_lines

    if report.changes:
        yield "\n".join([f"plan {report.hash}", *(line for item in report.changes for line in change_lines(item))])
    if report.builds:
        builds = [(item.view, *_build_cells(item)) for item in report.builds]
        yield table("views that come online", ("view", "work", "time"), builds)
    if report.retires:
        retired = [
            (item.view, f"{length_text(int(item.hours * 3_600_000_000))} after apply") for item in report.retires
        ]
        yield table("views that go offline, because nothing reads them", ("view", "when"), retired)
    if report.trains:
        trains = [(item.model, item.version, _first_names(item.reasons)) for item in report.trains]
        yield table("models to train, to adopt the changes", ("model", "champion", "because of"), trains)
    if report.serves and report.changes:
        serves = [(item.model, item.version, item.role, _views_text(item.views)) for item in report.serves]
        yield table("versions that are still served", ("model", "version", "role", "reads"), serves)
    if report.breakages:
        breakages = [(item.model, item.version, item.reason) for item in report.breakages]
        yield table("served versions that would break", ("model", "version", "reason"), breakages)


def _build_cells(item: Build) -> tuple[str, str | None]:
    if item.kind == "catch up":
        return "states are still online, and catch up", None
    if item.kind == "states":
        time = None if item.seconds is None else f"about {duration_text(max(1, round(item.seconds)))}"
        work = (
            f"states, from {count_text(item.rows, 'event')} of the log"
            if item.rows
            else "states: the log has no events yet"
        )
        return work, time
    rows = "rows of a CSV source" if item.rows is None else f"about {count_text(item.rows, 'row')}"
    return f"{rows}, accepted by the next materialization", None


def _views_text(views: Sequence[str]) -> str:
    """Return the views that a version reads; views that are no longer in the plan by name.

    >>> _views_text(["facts", "card_now@3f2a91c0"]), _views_text(["facts"])
    ('card_now@3f2a91c0, and 1 view of the plan', '1 view of the plan')
    """
    old = [view for view in views if "@" in view]
    n = len(views) - len(old)
    current = [f"{n} view{'' if n == 1 else 's'} of the plan"] if n else []
    return ", and ".join([*([_first_names(old)] if old else []), *current]) or "no views"


def _first_names(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f", {more} more" if more > 0 else "")
