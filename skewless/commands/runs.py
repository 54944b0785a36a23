"""``skewless runs``: the runs of the scheduler, and requests to start, retry or cancel one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.cells import StateCell
from skewless.commands.command import UNCHANGED, DryRun, command
from skewless.commands.output import Session, facts_table
from skewless.commands.tables import TextTable
from skewless.operations.readable import duration_text, time_text
from skewless.operations.runs import BY_HAND

if TYPE_CHECKING:
    from skewless.infra.jobs.run import Run, RunId

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of a run, as `skewless runs list` shows it.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of a job, for example 'retrain fraud'.")]
JobFilter = Annotated[str | None, typer.Argument(metavar="JOB", help="Name of a job; default: all jobs.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Most runs to list, the latest.")]
StateName = Annotated[
    str | None, typer.Option("--state", metavar="STATE", help="List only runs in this state, for example failed.")
]
Cause = Annotated[str, typer.Option("--cause", metavar="TEXT", help="Cause, stored in the ledger.")]


@command("List scheduled runs.", "'retrain fraud' --json", name="runs list")
def list_runs(session: Session, job: JobFilter = None, *, limit: Limit = 50, state: StateName = None) -> None:
    """List the runs of one job or of all jobs, the latest last."""
    runs = session.project.runs.list(job, limit=limit, state=state)
    part = TextTable("runs", ("run", "state", "started", "duration", "cause", "error"), [_row(run) for run in runs])
    session.show({"runs": [run.as_dict() for run in runs]}, part if runs else "no runs")


def _row(run: Run) -> tuple[object, ...]:
    duration = None if run.seconds is None else duration_text(run.seconds)
    return str(run.id), StateCell(run.state), time_text(run.started_us), duration, run.cause, run.error


@command("Show one run.", "retrain:fraud@20260115T040000Z", name="runs show")
def show_run(session: Session, run_id: Id) -> None:
    """Show one run: state, cause, inputs, outputs, times and error."""
    body = session.project.runs.show(run_id).as_dict()
    session.show(body, facts_table(str(body["id"]), list(body.items())))


@command("Request a run of a job.", "'retrain fraud' --cause 'new prices'", name="runs start")
def start_run(session: Session, job: JobName, *, cause: Cause = BY_HAND, dry_run: DryRun = False) -> None:
    """Request a run of a job now; it starts when earlier runs of its kind have ended."""
    _show_request(session, session.project.runs.start(job, cause=cause, dry_run=dry_run), "requested", dry_run=dry_run)


@command("Request another attempt of a run.", "materialize@20260115T120000Z", name="runs retry")
def retry_run(session: Session, run_id: Id, *, dry_run: DryRun = False) -> None:
    """Request another attempt of a run; exit with code 9 while the run is in progress."""
    _show_request(session, session.project.runs.retry(run_id, dry_run=dry_run), "requested", dry_run=dry_run)


@command("Cancel a run that is in progress.", "retrain:fraud@20260115T040000Z", name="runs cancel")
def cancel_run(session: Session, run_id: Id, *, dry_run: DryRun = False) -> None:
    """Request that the scheduler ends a run in progress; exit with code 9 if the run has ended."""
    _show_request(session, session.project.runs.cancel(run_id, dry_run=dry_run), "cancelled", dry_run=dry_run)


def _show_request(session: Session, run: RunId, result: str, *, dry_run: bool) -> None:
    text = f"would be {result}; {UNCHANGED}" if dry_run else f"is {result}"
    session.show({"dry_run": dry_run, "run": str(run)}, f"{run} {text}")
