"""``skewless scheduler``: materialise, validate and retrain on cron."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering
from skewless.errors import SkewlessError

Once = Annotated[bool, typer.Option("--once", help="Run every job once, now, then stop.")]


def scheduler(*, repo: Repo = Path(), once: Once = False, as_json: Json = False) -> None:
    """Materialise, check and retrain on the cron lines of the settings and models, until told to stop."""
    with answering(as_json=as_json) as output:
        from training.scheduler import run_scheduler

        outcomes = run_scheduler(open_project(output, repo), once=once)
        lines = [f"{item.job}: {'done' if item.ok else 'refused'} in {item.seconds:.1f} s" for item in outcomes]
        output.answer({"once": once, "jobs": [item.as_dict() for item in outcomes]}, *(lines or ["scheduler: stopped"]))
        refused = [str(item.detail.get("kind")) for item in outcomes if not item.ok]
        if refused:
            raise typer.Exit(exit_codes()[refused[0]])


def exit_codes() -> dict[str, int]:
    """Return the exit code of each kind of error.

    >>> exit_codes()["gate"]
    5
    """
    kinds: list[type[SkewlessError]] = [SkewlessError, *SkewlessError.__subclasses__()]
    return {error.kind: error.exit_code for error in kinds}
