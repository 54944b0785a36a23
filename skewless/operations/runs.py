"""The ledger of a project's runs, and what may be asked of its scheduler."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from skewless.contract.errors import ConflictError

if TYPE_CHECKING:
    from skewless.infra.jobs.requests import Request
    from skewless.infra.jobs.run import Run, RunId
    from skewless.project import Project


def newest_runs(project: Project, job: str | None = None, limit: int = 50, state: str | None = None) -> list[Run]:
    """Return the newest runs of a job or of all, the newest last."""
    from skewless.infra.jobs.ledger import Ledger

    ledger = Ledger(project.state)
    runs = (ledger.get(run_id) for run_id in ledger.backwards(job))
    return list(islice((run for run in runs if state in {None, run.state}), limit))[::-1]


def find_run(project: Project, text: str) -> Run:
    """Return a run.

    Raises:
        RequestError: there is none of that name.
    """
    from skewless.infra.jobs.ledger import Ledger
    from skewless.infra.jobs.run import RunId

    return Ledger(project.state).get(RunId.parse(text))


def retry(project: Project, text: str, *, dry_run: bool = False) -> RunId:
    """Ask for the next attempt of a run; return what it will be called.

    Raises:
        ConflictError: the run is under way, or was asked for already.
        RequestError: there is none of that name.
    """
    from skewless.infra.jobs.ledger import Ledger
    from skewless.infra.jobs.requests import Request

    run = find_run(project, text)
    if run.state == "running":
        raise ConflictError(f"run {text!r}", "is under way", fix="wait for it, or cancel it first")
    tick = (run.id.job, run.id.tick_us)
    others = [run_id for run_id in Ledger(project.state).ids(run.id.job) if (run_id.job, run_id.tick_us) == tick]
    asked = replace(run.id, attempt=max(run_id.attempt for run_id in others) + 1)
    _ask(project, Request(kind="start", run_id=asked, cause=f"retry of {run.id}, asked for by hand"), dry_run=dry_run)
    return asked


def cancel(project: Project, text: str, *, dry_run: bool = False) -> RunId:
    """Ask for the end of a run.

    Raises:
        ConflictError: it has ended.
        RequestError: there is none of that name.
    """
    from skewless.infra.jobs.requests import Request

    run = find_run(project, text)
    if run.state != "running":
        raise ConflictError(f"run {text!r}", f"has ended: {run.state}", fix="look at it with `skewless runs show`")
    _ask(project, Request(kind="cancel", run_id=run.id, cause="cancelled by hand"), dry_run=dry_run)
    return run.id


def start(project: Project, verbs: Collection[str], job: str, cause: str, *, dry_run: bool = False) -> RunId:
    """Ask for a run of a job now; return what it will be called.

    Raises:
        RequestError: the project has no such job.
    """
    from skewless.infra.jobs.requests import Request
    from skewless.infra.jobs.run import RunId
    from skewless.operations.scheduler import PlannedJobs
    from skewless.training.scheduling.job import find_job

    found = find_job(PlannedJobs(project=project, verbs=verbs)(), job)
    asked = RunId(job=found.name, tick_us=project.clock.now_us())
    _ask(project, Request(kind="start", run_id=asked, cause=cause), dry_run=dry_run)
    return asked


def retrain(project: Project, model: str, why: str) -> RunId:
    """Ask for a retraining of a model on cause; return what the run will be called.

    Raises:
        ConflictError: it was asked for at the same microsecond.
    """
    from skewless.infra.jobs.requests import Request
    from skewless.infra.jobs.run import RunId

    asked = RunId(job=f"retrain {model}", tick_us=project.clock.now_us())
    _ask(project, Request(kind="start", run_id=asked, cause=f"trigger: {why}"), dry_run=False)
    return asked


def _ask(project: Project, request: Request, *, dry_run: bool) -> None:
    from skewless.infra.jobs.requests import Requests

    if not dry_run:
        Requests(project.state).put(request)
