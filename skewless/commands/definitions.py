"""``skewless plan`` and ``skewless apply``: what the definitions would change, and putting them in force."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.length import length_text
from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import Output, answering, table
from skewless.contract.errors import GateError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.infra.plans.plan_effects import Build
    from skewless.infra.plans.planning import PlanReport

Check = Annotated[bool, typer.Option("--check", help="Exit 5 if `apply` would change anything.")]
_MOST_NAMES = 3


def plan(*, check: Check = False, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show what `apply` would change, and what comes of it for views and models; nothing is touched."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("compiling the definitions"):
            report = project.plan()
        _answer(output, report)
        if check and report.changes:
            raise typer.Exit(GateError.exit_code)


def apply(*, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Put the definitions in force: Feast's registry, then the compiled plan."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("compiling the definitions"):
            report = project.apply(dry_run=dry_run)
        _answer(output, report)


def _answer(output: Output, report: PlanReport) -> None:
    done = "in force" if report.applied else "not applied: nothing was touched"
    n = len(report.changes)
    last = f"plan {report.hash}: {n or 'no'} change{'' if n == 1 else 's'}, {done}"
    output.answer(report.as_dict(), *_parts(report), *report.notes, last)


def _parts(report: PlanReport) -> Iterator[RenderableType]:
    from skewless.commands.change_text import change_lines

    if report.changes:
        yield "\n".join([f"plan {report.hash}", *(line for item in report.changes for line in change_lines(item)), ""])
    if report.builds:
        builds = [(item.view, *_built(item)) for item in report.builds]
        yield table("comes online", ("view", "what", "time"), builds)
    if report.retires:
        retired = [
            (item.view, f"{length_text(int(item.hours * 3_600_000_000))} after apply") for item in report.retires
        ]
        yield table("goes offline, as nothing reads it any more", ("view", "when"), retired)
    if report.trains:
        trained = [(item.model, item.version, _some(item.reasons)) for item in report.trains]
        yield table("to be trained, to get what is declared", ("model", "champion", "because of"), trained)
    if report.serves and report.changes:
        served = [(item.model, item.version, item.role, _read(item.views)) for item in report.serves]
        yield table("goes on being served", ("model", "version", "role", "on"), served)
    if report.breakages:
        broken = [(item.model, item.version, item.reason) for item in report.breakages]
        yield table("served models that would break", ("model", "version", "reason"), broken)


def _built(item: Build) -> tuple[str, str | None]:
    if item.kind == "catch up":
        return "states are online still, and catch up", None
    if item.kind == "states":
        time = None if item.seconds is None else f"about {length_text(max(1, round(item.seconds)) * 1_000_000)}"
        return (
            f"states, from {item.rows:,} events of the log" if item.rows else "states: the log has no events yet",
            time,
        )
    rows = "rows of a CSV source" if item.rows is None else f"about {item.rows:,} rows"
    return f"{rows}, accepted by the next materialization", None


def _read(views: Sequence[str]) -> str:
    """Return what a version reads: the versions of views that are no longer in the plan by name.

    >>> _read(["facts", "card_now@3f2a91c0"]), _read(["facts"])
    ('card_now@3f2a91c0, and 1 view of the plan', '1 view of the plan')
    """
    old = [view for view in views if "@" in view]
    n = len(views) - len(old)
    current = [f"{n} view{'' if n == 1 else 's'} of the plan"] if n else []
    return ", and ".join([*([_some(old)] if old else []), *current]) or "no views"


def _some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f", {more} more" if more > 0 else "")
