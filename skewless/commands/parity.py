"""``skewless parity``: what the online store holds, computed again from the accepted log and compared bit for bit."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Output, answering
from skewless.contract.errors import GateError

if TYPE_CHECKING:
    from skewless.project import Project
    from skewless.validation.parity_report import ParityReport

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
            report = _compared(project, output, views or [], sample, seed, repair=repair)
        output.answer({"ok": report.ok, **report.as_dict()}, *report.lines())
        if not report.ok:
            raise typer.Exit(GateError.exit_code)


def _compared(
    project: Project, output: Output, names: list[str], sample: int, seed: int, *, repair: bool
) -> ParityReport:
    from skewless.infra.online.store import open_online_store
    from skewless.operations.proof import run_parity

    store = output.until_done.enter_context(closing(open_online_store(project.redis_url))) if repair else None
    return run_parity(project, names, sample=sample, seed=seed, repair=store)
