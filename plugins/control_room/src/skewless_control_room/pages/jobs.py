"""The jobs of the scheduler and their runs, as rows of pages."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from skewless.contract.plain_record import PlainRecord
from skewless.infra.definitions.plans.applied_plan import read_plan_number
from skewless.infra.platform.jobs.ledger import Ledger, Requests
from skewless.infra.platform.jobs.run import RunSpan
from skewless.infra.platform.storage.leases import Leases
from skewless.operations.models.rollout import needs_step
from skewless.project import Project
from skewless.training.scheduling.job import Job, latest_tick, list_jobs
from skewless_control_room.page import Query

_MOST_JOBS, _MOST_REQUESTS = 50, 50
_LATE_US = 60_000_000  # a due tick that has not started after this time is overdue
KINDS = {
    "running": "unknown",
    "done": "good",
    "failed": "bad",
    "lost": "bad",
    "refused": "warning",
    "cancelled": "plain",
}


@dataclass(frozen=True, kw_only=True)
class RunRow(PlainRecord):
    """A run in a list.

    Args:
        kind: colour of its state.
        seconds: its duration; None: it runs.
        error: its beginning.
    """

    id: str
    job: str
    state: str
    kind: str
    cause: str
    due_us: int
    started_us: int
    seconds: float | None
    error: str | None

    @classmethod
    def of(cls, run: RunSpan) -> RunRow:
        """Return the row of a run."""
        return cls(
            id=str(run.id),
            job=run.id.job,
            state=run.state,
            kind=KINDS[run.state],
            cause=run.cause,
            due_us=run.id.tick_us,
            started_us=run.started_us,
            seconds=run.seconds,
            error=run.error,
        )


@dataclass(frozen=True, kw_only=True)
class JobRow(PlainRecord):
    """A job of the applied plan.

    Args:
        command: what it runs.
        next_us: its next tick; None: it runs only on request, or has no work now.
        overdue_us: a tick that is due and has not started; None: there is none.
    """

    job: str
    command: str
    last: RunRow | None
    next_us: int | None
    overdue_us: int | None


@dataclass(frozen=True, kw_only=True)
class JobList(PlainRecord):
    """Jobs by name.

    Args:
        total: of all pages.
        after: name of the last job, from which the next page continues; empty: there is no other page.
        leader: holder of the scheduler's lease; empty: none leads, so nothing starts.
        requested: ids of runs that wait for their start, or for their end.
    """

    jobs: Sequence[JobRow]
    total: int
    after: str
    leader: str
    requested: Sequence[str]


def read_jobs(project: Project, ledger: Ledger, query: Query) -> JobList:
    """Return a page of the jobs that a reader may see, with their next ticks.

    Raises:
        StoreError: the database is unavailable.
    """
    jobs = {job.name: job for job in planned_jobs(project) if may_see(query, job.name)}
    names = sorted(name for name in jobs if name > query.text("after"))
    leader = Leases(project.state.database).read_holder("scheduler")
    requested = [request for request in Requests(project.state).open() if may_see(query, request.run_id.job)]
    return JobList(
        jobs=[_read_job(ledger, jobs[name], project.clock.now_us()) for name in names[:_MOST_JOBS]],
        total=len(jobs),
        after=names[_MOST_JOBS - 1] if len(names) > _MOST_JOBS else "",
        leader=" ".join((leader or "").split("/")[0:3:2]),
        requested=[f"{request.kind} {request.run_id}" for request in requested[:_MOST_REQUESTS]],
    )


def planned_jobs(project: Project) -> list[Job]:
    """Return the jobs of the applied plan; empty: no plan is applied."""
    if not read_plan_number(project.state):
        return []
    return list_jobs(project.settings, project.models, partial(needs_step, project))


def _read_job(ledger: Ledger, job: Job, now_us: int) -> JobRow:
    last = ledger.latest_span(job.name)
    next_us = overdue_us = None
    if job.schedule is not None and job.has_work():
        next_us = job.schedule.next(now_us)
        if last is not None:  # before its first run, the scheduler decides from when on ticks count
            overdue_us = latest_tick(job.schedule, last.id.tick_us, now_us - _LATE_US)
    return JobRow(
        job=job.name,
        command=" ".join(["skewless", *map(shlex.quote, job.words)]),
        last=None if last is None else RunRow.of(last),
        next_us=next_us,
        overdue_us=overdue_us,
    )


def may_see(query: Query, job: str) -> bool:
    """Return whether a reader may see a job: it has no model, or one of theirs."""
    model = job.partition(" ")[2]
    return query.models is None or not model or model in query.models
