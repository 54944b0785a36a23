"""``skewless parity``: the online store, compared with the accepted log bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import Engine, Json, Repo, open_project
from skewless.commands.output import command_output, verdict_lines
from skewless.contract.errors import GateError

Views = Annotated[list[str] | None, typer.Argument(metavar="VIEW", help="Views of any kind; default: all.")]
Sample = Annotated[int, typer.Option("--sample", metavar="N", min=1, help="Number of entities of each view.")]
Seed = Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Seed of the sample.")]
Repair = Annotated[bool, typer.Option("--repair", help="Repair mismatches from the log.")]


def parity(
    views: Views = None,
    *,
    sample: Sample = 1_000,
    seed: Seed = 0,
    repair: Repair = False,
    repo: Repo = Path(),
    engine: Engine = None,
    as_json: Json = False,
) -> None:
    """Compare the online store with the log, for a sample of entities; exit with code 5 if a bit differs."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo, engine=engine)
        with output.progress("comparing the online store with the log") as project.on_progress:
            report = project.parity(views or (), sample=sample, seed=seed, repair=repair)
        output.show({"ok": report.ok, **report.as_dict()}, *verdict_lines(report.lines(), ok=report.ok))
        if not report.ok:
            raise typer.Exit(GateError.exit_code)
