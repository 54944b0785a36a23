"""``skewless rollback``: all traffic back to the champion, or to the champion before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import UNCHANGED, DryRun, Json, Repo, open_project
from skewless.commands.output import command_output

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason, stored in the history.")]


def rollback(
    model: Name,
    *,
    reason: Reason = "rolled back by hand",
    repo: Repo = Path(),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """End a rollout and send all traffic back to the champion.

    Without a rollout, the champion before the current one becomes champion again. The command needs no server.
    Servers follow within two seconds.
    """
    with command_output(as_json=as_json) as output:
        outcome = open_project(output, repo).rollback(model, reason=reason, dry_run=dry_run)
        champion = outcome.policy.champion if outcome.policy else None
        body = {"dry_run": dry_run, **outcome.as_dict()}
        if dry_run:
            output.show(body, f"{model}: version {champion} would receive all traffic", UNCHANGED)
        else:
            output.show(body, f"{model}: version {champion} receives all traffic again: {reason}")
