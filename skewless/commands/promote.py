"""``skewless promote``: a version compared with the champion on the newest test rows, and put in its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.decided import decided
from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import answering, error_body

if TYPE_CHECKING:
    from skewless.operations.promotion import Promotion

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")]
Version = Annotated[str | None, typer.Argument(metavar="[VERSION]", help="For example 000003; none: the newest.")]


def promote(
    model: Name, version: Version = None, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Put a version in the champion's place if its gate allows, at once or by the model's rollout; exit 5 if not.

    Both are measured on the newest test rows. Whoever promotes at the same time as somebody else is told: exit 9.
    """
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.progress(f"comparing versions of {model}") as bar:
            planned = project.promote(model, version, dry_run=dry_run, on_rows=bar)
        refusal = planned.refusal
        body = {"dry_run": dry_run, **planned.as_dict()} | (error_body(refusal) if refusal else {})
        tables = decided(planned.decision) if planned.decision else []
        output.answer(body, *tables, _sentence(planned, dry_run=dry_run))
        if refusal:
            raise typer.Exit(refusal.exit_code)


def _sentence(planned: Promotion, *, dry_run: bool) -> str:
    name = f"{planned.model} {planned.version}"
    if planned.decision is None:
        return f"{name} is champion already"
    done = {
        "nothing": "is not promoted",
        "at_once": "would be champion" if dry_run else "is champion",
        "rollout": "would begin its rollout" if dry_run else "has begun its rollout",
    }[planned.way]
    return f"{name} {done}: {planned.decision.reason}"
