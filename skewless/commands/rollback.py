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
        outcome = open_project(output, repo).rollback(model, reason=reason, dry_run=dry_run)
        champion = outcome.policy.champion if outcome.policy else None
        body = {"dry_run": dry_run, **outcome.as_dict()}
        if dry_run:
            output.answer(body, f"{model}: version {champion} would have everything", "nothing was changed")
        else:
            output.answer(body, f"{model}: version {champion} has everything again: {reason}")
