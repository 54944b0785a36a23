"""``skewless promote``: evaluation of a version against the champion, and its promotion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.decision_text import decision_parts
from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import command_output, error_body
from skewless.commands.rollout_text import read_rollout_lines

if TYPE_CHECKING:
    from skewless.operations.promotion import Promotion

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model.")]
Version = Annotated[str | None, typer.Argument(metavar="VERSION", help="For example 000003; default: the latest.")]


def promote(
    model: Name, version: Version = None, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Evaluate a version and the champion on the latest test rows, and promote the version if it passes its gate.

    A model with a rollout begins it. Exit with code 5 if the gate fails, and with code 9 if another process has
    promoted a version or begun a rollout meanwhile.
    """
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.progress(f"comparing versions of {model}") as on_progress:
            planned = project.promote(model, version, dry_run=dry_run, on_rows=on_progress)
        refusal = planned.refusal
        body = {"dry_run": dry_run, **planned.as_dict()} | (error_body(refusal) if refusal else {})
        tables = decision_parts(planned.decision) if planned.decision else []
        lines = read_rollout_lines(project, model) if planned.way == "rollout" and not dry_run else []
        output.show(body, *tables, _sentence(planned, dry_run=dry_run), *lines)
        if refusal:
            raise typer.Exit(refusal.exit_code)


def _sentence(planned: Promotion, *, dry_run: bool) -> str:
    name = f"{planned.model} {planned.version}"
    if planned.decision is None:
        return f"{name} is already champion"
    result = {
        "nothing": "is not promoted",
        "at_once": "would be champion" if dry_run else "is champion",
        "rollout": "would begin its rollout" if dry_run else "has begun its rollout",
    }[planned.way]
    return f"{name} {result}: {planned.decision.reason}"
