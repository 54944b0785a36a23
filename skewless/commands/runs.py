"""``skewless runs``: the runs of the scheduler, and requests to start, retry or cancel one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.cells import StateCell
from skewless.commands.options import UNCHANGED, DryRun, Json, Repo, open_project
from skewless.commands.output import Output, command_output, facts_table, table
from skewless.commands.tables import TextTable
from skewless.operations.readable import duration_text, time_text

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
_BY_HAND = "requested by hand"


def list_runs(
    job: JobFilter = None, *, repo: Repo = Path(), limit: Limit = 50, state: StateName = None, as_json: Json = False
) -> None:
    """List the runs of one job or of all jobs, the latest last."""
    with command_output(as_json=as_json) as output:
        runs = open_project(output, repo).runs.list(job, limit=limit, state=state)
        output.show({"runs": [run.as_dict() for run in runs]}, _table(runs) if runs else "no runs")


def show_run(run_id: Id, *, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show one run: state, cause, inputs, outputs, times and error."""
    with command_output(as_json=as_json) as output:
        body = open_project(output, repo).runs.show(run_id).as_dict()
        output.show(body, facts_table(str(body["id"]), list(body.items())))


def retry_run(run_id: Id, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Request another attempt of a run; exit with code 9 while the run is in progress."""
    with command_output(as_json=as_json) as output:
        requested = open_project(output, repo).runs.retry(run_id, dry_run=dry_run)
        _show_request(output, requested, "requested", dry_run=dry_run)


def cancel_run(run_id: Id, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Request that the scheduler ends a run in progress; exit with code 9 if the run has ended."""
    with command_output(as_json=as_json) as output:
        run = open_project(output, repo).runs.cancel(run_id, dry_run=dry_run)
        _show_request(output, run, "cancelled", dry_run=dry_run)


def start_run(
    job: JobName,
    *,
    repo: Repo = Path(),
    cause: Cause = _BY_HAND,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Request a run of a job now; it starts when earlier runs of its kind have ended."""
    with command_output(as_json=as_json) as output:
        requested = open_project(output, repo).runs.start(job, cause=cause, dry_run=dry_run)
        _show_request(output, requested, "requested", dry_run=dry_run)


def _show_request(output: Output, run: RunId, result: str, *, dry_run: bool) -> None:
    text = f"would be {result}; {UNCHANGED}" if dry_run else f"is {result}"
    output.show({"dry_run": dry_run, "run": str(run)}, f"{run} {text}")


def _table(runs: Sequence[Run]) -> TextTable:
    rows = [
        (
            str(run.id),
            StateCell(run.state),
            time_text(run.started_us),
            None if run.seconds is None else duration_text(run.seconds),
            run.cause,
            run.error,
        )
        for run in runs
    ]
    return table("runs", ("run", "state", "started", "duration", "cause", "error"), rows)
