"""The jobs of a project, from its settings and models: their commands, schedules and time limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from apscheduler.triggers.cron import CronTrigger

from skewless.contract.clock import from_us, to_us
from skewless.contract.errors import DefinitionError, RequestError
from skewless.contract.settings import Settings
from skewless.contract.spec import ModelSpec
from skewless.infra.platform.jobs.cron import cron_trigger
from skewless.infra.platform.jobs.run import RunId

_EVERY = re.compile(r"@every (?P<number>\d+(?:\.\d+)?)(?P<unit>[smhd])", re.ASCII)
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_OFF = "off"
# First width of the search for the latest time of a cron line, a minute; it grows until it contains one.
_SEARCH_WIDTH_US = 60_000_000
_SEARCH_GROWTH = 4

JobQueue = Literal["data", "models", "traffic"]
# Replay skips files that are proven, and validation skips rows that have passed.
_OPTIONS = {"replay": ("--new",), "validate": ("--record",)}


class Schedule(Protocol):
    """An increasing series of times, microseconds of the project's clock."""

    def next(self, after_us: int) -> int | None:
        """Return the first time after another; None if there is none."""
        ...

    def latest(self, after_us: int, until_us: int) -> int | None:
        """Return the last time in ``(after_us, until_us]``; None if there is none."""
        ...


@dataclass(frozen=True)
class FixedInterval:
    """Times at a fixed interval, counted from the epoch.

    >>> FixedInterval(10).next(25), FixedInterval(10).latest(25, 59), FixedInterval(10).latest(50, 59)
    (30, 50, None)
    """

    distance_us: int

    def next(self, after_us: int) -> int:
        """Return the first time after another."""
        # From the epoch and not from the start: each scheduler finds the same ticks, so the ledger can claim each once.
        return (after_us // self.distance_us + 1) * self.distance_us

    def latest(self, after_us: int, until_us: int) -> int | None:
        """Return the last time in ``(after_us, until_us]``."""
        last = until_us // self.distance_us * self.distance_us
        return last if last > after_us else None


@dataclass(frozen=True)
class Cron:
    """The times of a cron line in UTC."""

    trigger: CronTrigger

    def next(self, after_us: int) -> int | None:
        """Return the first time after another."""
        # APScheduler also returns its argument, if that is a time of the line; the next time must be later.
        fire_time = self.trigger.get_next_fire_time(None, from_us(after_us + 1))
        return None if fire_time is None else to_us(fire_time)

    def latest(self, after_us: int, until_us: int) -> int | None:
        """Return the last time in ``(after_us, until_us]``; searches from the end, because a downtime can be long."""
        width = _SEARCH_WIDTH_US
        while True:
            start = max(after_us, until_us - width)
            last = self._last(start, until_us)
            if last is not None or start == after_us:
                return last
            width *= _SEARCH_GROWTH

    def _last(self, after_us: int, until_us: int) -> int | None:
        last, time_us = None, self.next(after_us)
        while time_us is not None and time_us <= until_us:
            last, time_us = time_us, self.next(time_us)
        return last


def parse_schedule(job: str, line: str) -> Schedule | None:
    """Return the schedule of a line: five cron fields, ``@every`` with an interval, or ``off``.

    >>> parse_schedule("drift fraud", "@every 2s")
    FixedInterval(distance_us=2000000)

    Raises:
        DefinitionError: the line cannot be read.
    """
    if line == _OFF:
        return None
    match = _EVERY.fullmatch(line)
    if match is None:
        return Cron(cron_trigger(job, line))
    distance_us = round(float(match["number"]) * _UNITS_S[match["unit"]] * 1e6)
    if distance_us < 1:
        raise DefinitionError(f"cron of job {job!r}", "has an invalid interval", value=line, fix="write '@every 30s'")
    return FixedInterval(distance_us)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A scheduled command.

    Args:
        words: the words of its command line, without ``skewless``.
        schedule: when it is due; None: only on request.
        queue: jobs of one queue run one after the other.
        limit_s: seconds after which a run is ended.
        has_work: a cheap check whether there is work; without work a tick is skipped.
        is_retried: whether a run that was lost with its scheduler is started again.
    """

    name: str
    words: tuple[str, ...]
    schedule: Schedule | None
    queue: JobQueue
    limit_s: float
    has_work: Callable[[], bool] = lambda: True
    is_retried: bool = False


@dataclass(frozen=True, kw_only=True)
class DueTick:
    """The latest due tick of a job; it replaces earlier missed ticks."""

    job: Job
    tick_us: int

    @property
    def run_id(self) -> RunId:
        """Return the id of its run."""
        return RunId(job=self.job.name, tick_us=self.tick_us)


def find_due_ticks(jobs: Iterable[Job], last: Mapping[str, int], now_us: int) -> list[DueTick]:
    """Return the due ticks, at most one per job, the oldest first.

    Args:
        last: per job the latest tick that was started, or the time of its registration; a job without an entry is
            not registered and not due.
    """
    ticks = [
        DueTick(job=job, tick_us=tick_us)
        for job in jobs
        if job.schedule is not None and job.name in last
        for tick_us in [latest_tick(job.schedule, last[job.name], now_us)]
        if tick_us is not None and job.has_work()
    ]
    return sorted(ticks, key=lambda item: item.tick_us)


def latest_tick(schedule: Schedule, last_us: int, now_us: int) -> int | None:
    """Return the latest time after the last tick and not after now; None if the clock was set back."""
    # Most polls find nothing due, and this is cheaper than the search for the latest time.
    next_us = schedule.next(last_us)
    if next_us is None or next_us > now_us:
        return None
    return schedule.latest(last_us, now_us)


def find_job(jobs: Iterable[Job], name: str) -> Job:
    """Return the job of a name.

    Raises:
        RequestError: no job has this name.
    """
    by_name = {job.name: job for job in jobs}
    if name in by_name:
        return by_name[name]
    names = ", ".join(by_name)
    raise RequestError("job", f"is not one of {names}", value=name, fix="name one of them")


def list_jobs(settings: Settings, models: Collection[ModelSpec], in_rollout: Callable[[str], bool]) -> list[Job]:
    """Return all jobs, in the order in which one round runs them.

    Args:
        in_rollout: returns whether a model is in a rollout.

    Raises:
        DefinitionError: a cron line cannot be read.
    """
    return [*_data_jobs(settings), *(job for spec in models for job in _model_jobs(settings, spec, in_rollout))]


def _data_jobs(settings: Settings) -> Iterator[Job]:
    limit_s = settings.job_seconds
    for command, line in (
        ("materialize", settings.materialize_cron),
        ("validate", settings.validate_cron),
        ("parity", settings.parity_cron),
        ("replay", settings.replay_cron),
        ("freshness", settings.freshness_cron),
        ("housekeeping", settings.housekeeping_cron),
    ):
        schedule = parse_schedule(command, line)
        if schedule is not None:
            words = (command, *_OPTIONS.get(command, ()))
            yield Job(name=command, words=words, schedule=schedule, queue="data", limit_s=limit_s)


def _model_jobs(settings: Settings, spec: ModelSpec, in_rollout: Callable[[str], bool]) -> Iterator[Job]:
    def job(kind: str, line: str, *words: str, is_retried: bool = False) -> Job:
        name, command = f"{kind} {spec.name}", words or (kind, spec.name)
        schedule = parse_schedule(name, line)
        return Job(name=name, words=command, schedule=schedule, queue="models", limit_s=limit_s, is_retried=is_retried)

    limit_s = settings.job_seconds
    checks = [job("drift", settings.drift_cron), job("quality", settings.quality_cron)]
    yield from (check for check in checks if check.schedule is not None)
    if has_triggers(spec):
        yield job("triggers", settings.triggers_cron, "triggers", spec.name, "--start")
    if spec.retrain or has_triggers(spec):
        # Retried, because its next tick may be weeks away; other jobs run again at their next tick.
        yield job("retrain", spec.retrain or _OFF, "train", spec.name, is_retried=True)
    # A queue of its own: sending traffic back must not wait until a training has ended.
    yield Job(
        name=f"rollout {spec.name}",
        words=("rollout", spec.name, "--step"),
        schedule=FixedInterval(round(settings.rollout_seconds * 1e6)),
        queue="traffic",
        limit_s=limit_s,
        has_work=lambda: in_rollout(spec.name),
    )


def has_triggers(spec: ModelSpec) -> bool:
    """Return whether a trigger, other than a cron line, can retrain a model."""
    triggers = spec.triggers
    return triggers.drift or any(item is not None for item in (triggers.quality, triggers.labels, triggers.age))
