"""The scheduler: one process that materialises, validates and retrains on cron.

A job that is refused by a gate or fails leaves everything as it was, says so, and runs again at its
next time. Jobs run one after the other; a job that was missed runs once.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_SCHEDULER_STARTED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger

from skewless.errors import DefinitionError, SkewlessError
from skewless.spec import ModelSpec

_log = structlog.get_logger()


class Schedulable(Protocol):
    """What the scheduler works on: a project, seen from here."""

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """Return the models of the plan in force."""
        ...

    @property
    def crons(self) -> dict[str, str]:
        """Return when to ``materialize`` and ``validate``, as cron expressions in UTC."""
        ...

    def refresh(self) -> None:
        """Take up a plan that was applied meanwhile."""
        ...

    def run_materialize(self) -> dict[str, Any]:
        """Materialise; return what was done."""
        ...

    def run_validate(self) -> dict[str, Any]:
        """Check all sources; return what was checked, raise GateError where a suite does not hold."""
        ...

    def run_retrain(self, model: str) -> dict[str, Any]:
        """Train a model and promote it if its gate allows; return the decision."""
        ...


@dataclass(frozen=True, kw_only=True)
class JobOutcome:
    """What became of one job.

    Args:
        detail: what was done, or the error in parts.
    """

    job: str
    ok: bool
    seconds: float
    detail: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A named piece of work and its cron expression."""

    name: str
    cron: str
    work: Callable[[], dict[str, Any]]


def jobs(project: Schedulable) -> list[Job]:
    """Return the jobs of a project: materialise, validate, and one retraining per model that asks for it."""
    crons = project.crons
    fixed = [
        Job(name="materialize", cron=crons["materialize"], work=project.run_materialize),
        Job(name="validate", cron=crons["validate"], work=project.run_validate),
    ]
    return fixed + list(_retrainings(project))


def run_job(project: Schedulable, job: Job) -> JobOutcome:
    """Run one job; an error that a user can act on becomes its outcome."""
    start = time.perf_counter()
    try:
        project.refresh()
        ok, detail = True, job.work()
    except SkewlessError as error:
        ok, detail = False, error.as_dict()
    outcome = JobOutcome(job=job.name, ok=ok, seconds=round(time.perf_counter() - start, 3), detail=detail)
    (_log.info if ok else _log.error)("job", **outcome.as_dict())
    return outcome


def run_scheduler(project: Schedulable, *, once: bool = False) -> list[JobOutcome]:
    """Run the jobs on their crons until SIGINT or SIGTERM; with ``once``, run each once and return.

    A job that is under way when the signal comes is finished first.

    Raises:
        DefinitionError: a cron expression cannot be read.
    """
    worker = ThreadPoolExecutor(1)
    scheduler = BlockingScheduler(timezone="UTC", executors={"default": worker})
    outcomes: list[JobOutcome] = []
    crashes: list[BaseException] = []
    todo = jobs(project)
    if once:
        scheduler.add_job(_round, DateTrigger(), args=[scheduler, project, todo, outcomes], misfire_grace_time=None)
        scheduler.add_listener(lambda event: crashes.append(event.exception), EVENT_JOB_ERROR)
    else:
        for job in todo:
            scheduler.add_job(
                _tick,
                _trigger(job),
                args=[scheduler, project, job],
                id=job.name,
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,
            )
    with _stopped_by_signals(scheduler):
        crons = {job.name: job.cron for job in todo}
        scheduler.add_listener(lambda _: _log.info("scheduler_started", jobs=crons), EVENT_SCHEDULER_STARTED)
        scheduler.start()
        worker.shutdown(wait=True)
    if crashes:
        raise crashes[0]
    return outcomes


def _round(scheduler: BlockingScheduler, project: Schedulable, todo: Sequence[Job], outcomes: list[JobOutcome]) -> None:
    try:
        outcomes.extend(run_job(project, job) for job in todo if scheduler.running)
    finally:
        _stop(scheduler)


def _tick(scheduler: BlockingScheduler, project: Schedulable, job: Job) -> None:
    # A job that still waited for its turn when the scheduler was stopped runs at its next time.
    if scheduler.running:
        run_job(project, job)


def _stop(scheduler: BlockingScheduler) -> None:
    if scheduler.running:
        scheduler.shutdown(wait=False)


def _retrainings(project: Schedulable) -> Iterator[Job]:
    for spec in project.models:
        if spec.retrain:
            work = partial(project.run_retrain, spec.name)
            yield Job(name=f"retrain {spec.name}", cron=spec.retrain, work=work)


def _trigger(job: Job) -> CronTrigger:
    try:
        return CronTrigger.from_crontab(job.cron, timezone="UTC")
    except ValueError as error:
        raise DefinitionError(
            f"cron of job {job.name!r}", str(error), value=job.cron, fix="write five fields, for example '0 4 * * *'"
        ) from error


@contextlib.contextmanager
def _stopped_by_signals(scheduler: BlockingScheduler) -> Iterator[None]:
    def stop(_number: int, _frame: object) -> None:
        _stop(scheduler)

    before: dict[int, Any] = {}

    def listen(_event: object) -> None:
        # Not earlier: a signal that comes before there is something to stop ends the process as usual.
        before.update({number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)})

    scheduler.add_listener(listen, EVENT_SCHEDULER_STARTED)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
