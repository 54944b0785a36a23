"""``skewless runs``: what the scheduler did, and what it is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import answering, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.infra.jobs.run import Run

Id = Annotated[str, typer.Argument(metavar="ID", help="A run, as `skewless runs list` shows it.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of a job, for example 'retrain fraud'.")]
OfJob = Annotated[str | None, typer.Argument(metavar="[JOB]", help="Name of a job; none: all.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Show at most so many, the newest.")]
State = Annotated[str | None, typer.Option("--state", help="Only runs in this state, for example failed.")]
Cause = Annotated[str, typer.Option("--cause", help="Why, for the ledger.")]
_BY_HAND = "asked for by hand"


def list_runs(
    job: OfJob = None, *, repo: Repo = Path(), limit: Limit = 50, state: State = None, as_json: Json = False
) -> None:
    """List the runs of a job or of all, the newest last."""
    with answering(as_json=as_json) as output:
        runs = open_project(output, repo).runs.list(job, limit=limit, state=state)
        output.answer({"runs": [run.as_dict() for run in runs]}, _shown("runs", runs))


def show_run(run_id: Id, *, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show one run: state, cause, inputs, outputs, times, error."""
    with answering(as_json=as_json) as output:
        body = open_project(output, repo).runs.show(run_id).as_dict()
        output.answer(body, table(str(body["id"]), ("", ""), list(body.items())))


def retry_run(run_id: Id, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Ask the scheduler to begin a run again; exit 9 while it is under way."""
    with answering(as_json=as_json) as output:
        asked = open_project(output, repo).runs.retry(run_id, dry_run=dry_run)
        told = "would be asked for; nothing was changed" if dry_run else "is asked for"
        output.answer({"dry_run": dry_run, "run": str(asked)}, f"{asked} {told}")


def cancel_run(run_id: Id, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Ask the scheduler to end a run that is under way; exit 9 if it has ended."""
    with answering(as_json=as_json) as output:
        asked = open_project(output, repo).runs.cancel(run_id, dry_run=dry_run)
        told = "would be cancelled; nothing was changed" if dry_run else "is to be cancelled"
        output.answer({"dry_run": dry_run, "run": str(asked)}, f"{asked} {told}")


def start_run(
    job: JobName,
    *,
    repo: Repo = Path(),
    cause: Cause = _BY_HAND,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Ask the scheduler to run a job now; it begins when the jobs of its kind before it have ended."""
    with answering(as_json=as_json) as output:
        asked = open_project(output, repo).runs.start(job, cause=cause, dry_run=dry_run)
        told = "would be asked for; nothing was changed" if dry_run else "is asked for"
        output.answer({"dry_run": dry_run, "run": str(asked)}, f"{asked} {told}")


def _shown(title: str, runs: Sequence[Run]) -> RenderableType:
    from skewless.contract.clock import from_us

    rows = [
        (str(run.id), run.state, f"{from_us(run.started_us):%Y-%m-%d %H:%M:%S}", run.seconds, run.cause, run.error)
        for run in runs
    ]
    return table(title, ("run", "state", "started", "seconds", "cause", "error"), rows)
