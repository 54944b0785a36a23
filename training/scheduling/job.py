"""The jobs of a project, from its settings and models: what is run, when, and for how long at most."""

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
from skewless.infra.jobs.cron import cron_trigger
from skewless.infra.jobs.run import RunId

_EVERY = re.compile(r"@every (?P<number>\d+(?:\.\d+)?)(?P<unit>[smhd])", re.ASCII)
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_OFF = "off"
_FIRST_LOOK_US = 60_000_000
_WIDER = 4

PartitionWorker = Literal["data", "models", "traffic"]
# What was proven is not proven every night, and what passed is not judged every hour.
_OPTIONS = {"replay": ("--new",), "validate": ("--record",)}


class Schedule(Protocol):
    """A rising row of moments, microseconds of the project's clock."""

    def next(self, after_us: int) -> int | None:
        """Return the first moment after another; None if there is none."""
        ...

    def newest(self, after_us: int, until_us: int) -> int | None:
        """Return the last moment after one and not after the other; None if there is none."""
        ...


@dataclass(frozen=True)
class FixedInterval:
    """Moments at a fixed distance, counted from the epoch.

    >>> FixedInterval(10).next(25), FixedInterval(10).newest(25, 59), FixedInterval(10).newest(50, 59)
    (30, 50, None)
    """

    distance_us: int

    def next(self, after_us: int) -> int:
        """Return the first moment after another."""
        return (after_us // self.distance_us + 1) * self.distance_us

    def newest(self, after_us: int, until_us: int) -> int | None:
        """Return the last moment after one and not after the other."""
        last = until_us // self.distance_us * self.distance_us
        return last if last > after_us else None


@dataclass(frozen=True)
class Cron:
    """The moments of a cron line in UTC."""

    trigger: CronTrigger

    def next(self, after_us: int) -> int | None:
        """Return the first moment after another."""
        found = self.trigger.get_next_fire_time(None, from_us(after_us + 1))
        return None if found is None else to_us(found)

    def newest(self, after_us: int, until_us: int) -> int | None:
        """Return the last moment after one and not after the other: a long downtime is searched from its end."""
        width = _FIRST_LOOK_US
        while True:
            start = max(after_us, until_us - width)
            found = self._last(start, until_us)
            if found is not None or start == after_us:
                return found
            width *= _WIDER

    def _last(self, after_us: int, until_us: int) -> int | None:
        last, moment = None, self.next(after_us)
        while moment is not None and moment <= until_us:
            last, moment = moment, self.next(moment)
        return last


def schedule_of(job: str, line: str) -> Schedule | None:
    """Return when a job runs: five cron fields, ``@every`` with a length of time, or ``off``.

    >>> schedule_of("drift fraud", "@every 2s")
    FixedInterval(distance_us=2000000)

    Raises:
        DefinitionError: the line cannot be read.
    """
    if line == _OFF:
        return None
    found = _EVERY.fullmatch(line)
    if found is None:
        return Cron(cron_trigger(job, line))
    distance_us = round(float(found["number"]) * _UNITS_S[found["unit"]] * 1e6)
    if distance_us < 1:
        raise DefinitionError(f"cron of job {job!r}", "is no length of time", value=line, fix="write '@every 30s'")
    return FixedInterval(distance_us)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A named piece of work, as data.

    Args:
        words: of the command line, without ``skewless``.
        schedule: when it is due; None: only when somebody asks.
        lane: jobs of one lane run one after the other.
        limit_s: it is ended after so many seconds.
        is_wanted: a cheap look whether there is anything to do; a tick without is not taken.
        again: whether a run that was lost with its scheduler is begun once more.
    """

    name: str
    words: tuple[str, ...]
    schedule: Schedule | None
    lane: PartitionWorker
    limit_s: float
    is_wanted: Callable[[], bool] = lambda: True
    again: bool = False


@dataclass(frozen=True, kw_only=True)
class DueTick:
    """A tick that is due: the newest one; those between it and the last that was taken are one with it."""

    job: Job
    tick_us: int

    @property
    def run_id(self) -> RunId:
        """Return what its run is called."""
        return RunId(job=self.job.name, tick_us=self.tick_us)


def due(jobs: Iterable[Job], last: Mapping[str, int], now_us: int) -> list[DueTick]:
    """Return what is due, at most one tick a job, the one that waits longest first.

    Args:
        last: per job the newest tick up to now that was taken, or since when the job is known; a job that is not
            there is not known yet, and not due.
    """
    found = [
        DueTick(job=job, tick_us=tick_us)
        for job in jobs
        if job.schedule is not None and job.name in last
        for tick_us in [newest(job.schedule, last[job.name], now_us)]
        if tick_us is not None and job.is_wanted()
    ]
    return sorted(found, key=lambda item: item.tick_us)


def newest(schedule: Schedule, last_us: int, now_us: int) -> int | None:
    """Return the newest moment after the last one taken and not after now; nothing where the clock was set back."""
    following = schedule.next(last_us)
    if following is None or following > now_us:
        return None
    return schedule.newest(last_us, now_us)


def find_job(jobs: Iterable[Job], name: str) -> Job:
    """Return the job of a name.

    Raises:
        RequestError: there is none.
    """
    by_name = {job.name: job for job in jobs}
    if name in by_name:
        return by_name[name]
    known = ", ".join(by_name)
    raise RequestError("job", f"is not one of {known}", value=name, fix="name one of them")


def jobs(settings: Settings, models: Collection[ModelSpec], in_rollout: Callable[[str], bool]) -> list[Job]:
    """Return what there is to do, in the order in which one round does it.

    Args:
        in_rollout: whether a model's traffic is on its way to another version.

    Raises:
        DefinitionError: a cron line cannot be read.
    """
    return [*_of_data(settings), *(job for spec in models for job in _of_model(settings, spec, in_rollout))]


def _of_data(settings: Settings) -> Iterator[Job]:
    limit_s = settings.job_seconds
    for verb, line in (
        ("materialize", settings.materialize_cron),
        ("validate", settings.validate_cron),
        ("parity", settings.parity_cron),
        ("replay", settings.replay_cron),
        ("freshness", settings.freshness_cron),
        ("housekeeping", settings.housekeeping_cron),
    ):
        schedule = schedule_of(verb, line)
        if schedule is not None:
            words = (verb, *_OPTIONS.get(verb, ()))
            yield Job(name=verb, words=words, schedule=schedule, lane="data", limit_s=limit_s)


def _of_model(settings: Settings, spec: ModelSpec, in_rollout: Callable[[str], bool]) -> Iterator[Job]:
    def job(kind: str, words: tuple[str, ...], schedule: Schedule | None) -> Job:
        return Job(name=f"{kind} {spec.name}", words=words, schedule=schedule, lane="models", limit_s=limit_s)

    limit_s = settings.job_seconds
    for kind, line in (("drift", settings.drift_cron), ("quality", settings.quality_cron)):
        schedule = schedule_of(f"{kind} {spec.name}", line)
        if schedule is not None:
            yield job(kind, (kind, spec.name), schedule)
    if has_causes(spec):
        yield job("triggers", ("triggers", spec.name, "--start"), schedule_of("triggers", settings.triggers_cron))
    if spec.retrain or has_causes(spec):
        yield _retraining(spec, limit_s)
    yield Job(
        name=f"rollout {spec.name}",
        words=("rollout", spec.name, "--step"),
        schedule=FixedInterval(round(settings.rollout_seconds * 1e6)),
        lane="traffic",
        limit_s=limit_s,
        is_wanted=lambda: in_rollout(spec.name),
    )


def has_causes(spec: ModelSpec) -> bool:
    """Say whether anything but its cron line may retrain a model."""
    triggers = spec.triggers
    return triggers.drift or any(item is not None for item in (triggers.quality, triggers.labels, triggers.age))


def _retraining(spec: ModelSpec, limit_s: float) -> Job:
    name = f"retrain {spec.name}"
    schedule = schedule_of(name, spec.retrain) if spec.retrain else None
    return Job(name=name, words=("train", spec.name), schedule=schedule, lane="models", limit_s=limit_s, again=True)
