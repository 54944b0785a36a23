"""``skewless rollout``: the traffic of models, and the rollouts of new versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.cells import StateCell
from skewless.commands.options import UNCHANGED, DryRun, Json, Model, Repo, open_project
from skewless.commands.output import Part, command_output, facts_table, table
from skewless.commands.rollout_text import read_rollout_lines
from skewless.operations.readable import time_text

if TYPE_CHECKING:
    from skewless.operations.rollout import RolloutOutcome
    from skewless.training.rollout.guardrails import Verdict

Begin = Annotated[str | None, typer.Option("--begin", metavar="VERSION", help="Begin the rollout of this version.")]
Step = Annotated[
    bool, typer.Option("--step", help="Judge the guardrails now, and advance each rollout or roll it back.")
]
_CHANGES = {
    None: "nothing to change",
    "begin": "rollout begins",
    "forward": "next step",
    "won": "challenger becomes champion",
    "back": "rolled back",
    "again": "step starts over",
    "follow": "traffic follows the alias",
}


def rollout(
    model: Model = None,
    *,
    begin: Begin = None,
    step: Step = False,
    repo: Repo = Path(),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Show the traffic and the guardrails of each model; begin a rollout, or advance all rollouts."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        outcomes = project.rollout(model, begin=begin, step=step, dry_run=dry_run)
        body = {"dry_run": dry_run, "models": [outcome.as_dict() for outcome in outcomes]}
        parts = [part for outcome in outcomes for part in _parts(outcome, is_change=step or begin is not None)]
        lines = [] if dry_run else [line for item in outcomes for line in read_rollout_lines(project, item.model)]
        output.show(body, *parts, *lines, *([UNCHANGED] if dry_run else []))


def _parts(outcome: RolloutOutcome, *, is_change: bool) -> list[Part]:
    policy = outcome.policy
    if policy is None:
        return [f"{outcome.model}: has no rollout yet; the champion answers all traffic"]
    facts: list[tuple[str, object]] = [
        ("phase", policy.phase),
        ("champion", policy.champion),
        ("challenger", policy.challenger),
        ("challenger's share", f"{policy.share:.4g}" if policy.challenger else None),
        ("since", time_text(policy.since_us)),
        ("reason", policy.reason),
    ]
    change = f", {_CHANGES[outcome.change]}" if is_change else ""
    parts: list[Part] = [facts_table(f"{outcome.model}, traffic policy {policy.number}{change}", facts)]
    if outcome.verdicts:
        columns = ("guardrail", "champion", "challenger", "worse by", "at least", "limit", "state")
        parts.append(table("guardrails", columns, [_row(verdict) for verdict in outcome.verdicts]))
    return parts


def _row(verdict: Verdict) -> tuple[object, ...]:
    numbers = (verdict.champion, verdict.challenger, verdict.worse, verdict.least)
    state = (
        StateCell("breached") if verdict.breached else "too few data" if verdict.least is None else StateCell("held")
    )
    return (verdict.guardrail, *numbers, verdict.limit, state)
