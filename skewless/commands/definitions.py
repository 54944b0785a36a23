"""``skewless plan`` and ``skewless apply``: what the definitions would change, and putting them in force."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import Output, answering, table

if TYPE_CHECKING:
    from infra.planning import PlanReport


def plan(*, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show what `apply` would change and which served models it would break; nothing is touched."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("compiling the definitions"):
            report = project.plan()
        _answer(output, report, applied=False)


def apply(*, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Put the definitions in force: Feast's registry, then the compiled plan."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("compiling the definitions"):
            report = project.plan() if dry_run else project.apply()
        _answer(output, report, applied=not dry_run)


def plan_body(report: PlanReport) -> dict[str, Any]:
    """Return a plan report as plain values."""
    return {
        "plan": report.hash,
        "changes": [asdict(change) for change in report.changes],
        "breakages": [asdict(breakage) for breakage in report.breakages],
    }


def _answer(output: Output, report: PlanReport, *, applied: bool) -> None:
    changes = [(item.action, item.kind, item.name, item.detail) for item in report.changes]
    parts = [table(f"plan {report.hash}", ("action", "kind", "name", "detail"), changes)] if changes else []
    if report.breakages:
        breakages = [(item.model, item.version, item.reason) for item in report.breakages]
        parts.append(table("served models that would break", ("model", "version", "reason"), breakages))
    done = "in force" if applied else "not applied: nothing was touched"
    last = f"plan {report.hash}: {len(changes) or 'no'} change{'' if len(changes) == 1 else 's'}, {done}"
    output.answer({**plan_body(report), "applied": applied}, *parts, last)
