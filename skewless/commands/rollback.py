"""``skewless rollback``: the champion has everything again, or the champion before this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import answering

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the history.")]


def rollback(
    model: Name,
    *,
    reason: Reason = "rolled back by hand",
    repo: Repo = Path(),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """End a rollout, or go back to the champion before this one. Needs no server; servers follow within seconds."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        from skewless.operations import rollout as operations

        if dry_run:
            policy = operations.plan_rollback(project, model, reason).policy
            body = {"dry_run": True, "model": model, "policy": policy.as_dict()}
            output.answer(body, f"{model}: version {policy.champion} would have everything", "nothing was changed")
            return
        outcome = operations.rollback(project, model, reason)
        champion = outcome.policy.champion if outcome.policy else None
        output.answer(outcome.as_dict(), f"{model}: version {champion} has everything again: {reason}")
