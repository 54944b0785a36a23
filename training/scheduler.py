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
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

import structlog
from apscheduler.events import EVENT_JOB_ERROR
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from infra.cron import cron_trigger
from skewless.errors import SkewlessError
from skewless.spec import ModelSpec

_log = structlog.get_logger()
_ONE_AT_A_TIME = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}


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
    scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
    bell, outcomes = _Bell(), list[JobOutcome]()
    crashes: list[BaseException] = []
    todo = jobs(project)
    if once:
        # Not a DateTrigger: APScheduler would remove its job, and fails at that while it is being shut down.
        once_now = {"trigger": IntervalTrigger(weeks=1), "next_run_time": datetime.now(UTC)}
        scheduler.add_job(_round, args=[bell, project, todo, outcomes], misfire_grace_time=None, **once_now)
        scheduler.add_listener(lambda event: crashes.append(event.exception), EVENT_JOB_ERROR)
    else:
        for job in todo:
            trigger = cron_trigger(job.name, job.cron)
            scheduler.add_job(_tick, trigger, args=[bell, project, job], id=job.name, **_ONE_AT_A_TIME)
    with bell.rung_by_signals():
        scheduler.start()
        _log.info("scheduler_started", jobs={job.name: job.cron for job in todo})
        try:
            bell.wait()
        finally:
            scheduler.shutdown(wait=True)
    if crashes:
        raise crashes[0]
    return outcomes


class _Bell:
    """Tells the scheduler to stop, from a job or from a signal handler.

    A handler may interrupt the main thread anywhere, even inside a lock; of the standard library's
    ways to wake it, only SimpleQueue may be used there.
    """

    def __init__(self) -> None:
        self.rung = False
        self._queue: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        self.rung = True
        self._queue.put(None)

    def wait(self) -> None:
        self._queue.get()

    @contextlib.contextmanager
    def rung_by_signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, lambda *_: self.ring()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _round(bell: _Bell, project: Schedulable, todo: Sequence[Job], outcomes: list[JobOutcome]) -> None:
    try:
        outcomes.extend(run_job(project, job) for job in todo if not bell.rung)
    finally:
        bell.ring()


def _tick(bell: _Bell, project: Schedulable, job: Job) -> None:
    # A job that still waited for its turn when the signal came runs at its next time.
    if not bell.rung:
        run_job(project, job)


def _retrainings(project: Schedulable) -> Iterator[Job]:
    for spec in project.models:
        if spec.retrain:
            work = partial(project.run_retrain, spec.name)
            yield Job(name=f"retrain {spec.name}", cron=spec.retrain, work=work)
