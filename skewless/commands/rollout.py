"""``skewless rollout``: where new versions of models are on their way to all of the traffic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skewless.commands.options import DryRun, Json, Model, Repo, open_project
from skewless.commands.output import Output, answering, cell, table
from skewless.contract.clock import from_us
from skewless.contract.errors import DefinitionError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.operations.rollout import RolloutOutcome
    from skewless.project import Project
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
        project = open_project(output, repo)
        names = [project.applied.model(model).name] if model is not None else [spec.name for spec in project.models]
        if begin is not None:
            name = project.applied.model_or_only(model).name
            _begin(project, output, name, begin, dry_run=dry_run)
            return
        if dry_run and step:
            fix = "leave --step out: what is shown is what it would judge"
            raise DefinitionError("option --dry-run", "does not go with --step", fix=fix)
        from skewless.operations import rollout as operations

        outcomes = [(operations.step if step else operations.status)(project, name) for name in names]
        _answer(output, outcomes, stepped=step)


def _begin(project: Project, output: Output, model: str, version: str, *, dry_run: bool) -> None:
    from skewless.operations import rollout as operations

    if dry_run:
        change = operations.plan_begin(project, model, version)
        body = {"model": model, "change": change.kind, "policy": change.policy.as_dict()} if change else None
        said = f"{model}: {change.policy.phase}, {change.policy.reason}" if change else f"{model}: nothing to change"
        output.answer({"dry_run": True, "models": [body] if body else []}, said, "nothing was changed")
        return
    _answer(output, [operations.begin(project, model, version)], stepped=True)


def _answer(output: Output, outcomes: list[RolloutOutcome], *, stepped: bool) -> None:
    parts = [part for outcome in outcomes for part in _shown(outcome, stepped=stepped)]
    output.answer({"models": [outcome.as_dict() for outcome in outcomes]}, *parts)


def _shown(outcome: RolloutOutcome, *, stepped: bool) -> list[RenderableType]:
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
    change = f", {_PROMISES[outcome.change]}" if stepped else ""
    shown = [table(f"{outcome.model}, traffic policy {policy.number}{change}", ("", ""), lines)]
    if outcome.verdicts:
        columns = ("guardrail", "champion", "challenger", "worse by", "at least", "limit", "state")
        shown.append(table("guardrails", columns, [_row(verdict) for verdict in outcome.verdicts]))
    return shown


def _row(verdict: Verdict) -> tuple[object, ...]:
    numbers = (verdict.champion, verdict.challenger, verdict.worse, verdict.least)
    state = "breached" if verdict.breached else "too little yet" if verdict.least is None else "held"
    return (verdict.guardrail, *map(cell, numbers), cell(verdict.limit), state)
