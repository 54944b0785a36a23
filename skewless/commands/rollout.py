"""``skewless rollout``: where new versions of models are on their way to all of the traffic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skewless.commands.options import DryRun, Json, Model, Repo, open_project
from skewless.commands.output import answering, cell, table
from skewless.contract.clock import from_us

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.operations.rollout import RolloutOutcome
    from skewless.training.rollout.guardrails import Verdict

Begin = Annotated[str | None, typer.Option("--begin", metavar="VERSION", help="Let this version start to take over.")]
Step = Annotated[bool, typer.Option("--step", help="Judge the guardrails now and go a step on, or back.")]
_PROMISES = {
    None: "nothing to change",
    "begin": "it begins",
    "forward": "a step on",
    "won": "the new version is champion",
    "back": "rolled back",
    "again": "the step starts over",
    "follow": "the traffic follows the alias",
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
    """Show which version answers whom and what the guardrails say; begin a rollout, or take it a step on or back."""
    with answering(as_json=as_json) as output:
        outcomes = open_project(output, repo).rollout(model, begin=begin, step=step, dry_run=dry_run)
        body = {"dry_run": dry_run, "models": [outcome.as_dict() for outcome in outcomes]}
        parts = [part for outcome in outcomes for part in _shown(outcome, moved=step or begin is not None)]
        output.answer(body, *parts, *(["nothing was changed"] if dry_run else []))


def _shown(outcome: RolloutOutcome, *, moved: bool) -> list[RenderableType]:
    policy = outcome.policy
    if policy is None:
        return [f"{outcome.model}: no version was ever rolled out; the champion answers everything"]
    lines: list[tuple[str, Any]] = [
        ("phase", policy.phase),
        ("champion", policy.champion),
        ("challenger", policy.challenger),
        ("its share", f"{policy.share:.4g}" if policy.challenger else None),
        ("since", from_us(policy.since_us).isoformat()),
        ("why", policy.reason),
    ]
    change = f", {_PROMISES[outcome.change]}" if moved else ""
    shown = [table(f"{outcome.model}, traffic policy {policy.number}{change}", ("", ""), lines)]
    if outcome.verdicts:
        columns = ("guardrail", "champion", "challenger", "worse by", "at least", "limit", "state")
        shown.append(table("guardrails", columns, [_row(verdict) for verdict in outcome.verdicts]))
    return shown


def _row(verdict: Verdict) -> tuple[object, ...]:
    numbers = (verdict.champion, verdict.challenger, verdict.worse, verdict.least)
    state = "breached" if verdict.breached else "too little yet" if verdict.least is None else "held"
    return (verdict.guardrail, *map(cell, numbers), cell(verdict.limit), state)
