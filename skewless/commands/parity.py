"""``skewless parity``: what the online store holds, computed again from the accepted log and compared bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering
from skewless.contract.errors import GateError

Views = Annotated[list[str] | None, typer.Argument(metavar="[VIEW]...", help="Views of any kind; none: all.")]
Sample = Annotated[int, typer.Option("--sample", metavar="N", min=1, help="How many entities of each view.")]
Seed = Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Chooses which entities; the same ones again.")]
Repair = Annotated[bool, typer.Option("--repair", help="Put what the log says in the place of what differs.")]


def parity(
    views: Views = None,
    *,
    sample: Sample = 1_000,
    seed: Seed = 0,
    repair: Repair = False,
    repo: Repo = Path(),
    as_json: Json = False,
) -> None:
    """Compare entities' online states with what the accepted log says of them; exit 5 if a bit differs."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("comparing the online store with the log"):
            report = project.parity(views or (), sample=sample, seed=seed, repair=repair)
        output.answer({"ok": report.ok, **report.as_dict()}, *report.lines())
        if not report.ok:
            raise typer.Exit(GateError.exit_code)
