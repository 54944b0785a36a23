"""The jobs of a project, from its settings and models: what is run, when, and for how long at most."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from skewless.contract.errors import RequestError
from skewless.contract.settings import Settings
from skewless.contract.spec import ModelSpec
from skewless.infra.jobs.run import RunId
from skewless.training.scheduling.schedule import Every, Schedule, schedule_of

Lane = Literal["data", "models", "traffic"]
# What was proven is not proven every night, and what passed is not judged every hour.
_OPTIONS = {"replay": ("--new",), "validate": ("--record",)}


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
    lane: Lane
    limit_s: float
    is_wanted: Callable[[], bool] = lambda: True
    again: bool = False


@dataclass(frozen=True, kw_only=True)
class Due:
    """A tick that is due: the newest one; those between it and the last that was taken are one with it."""

    job: Job
    tick_us: int

    @property
    def run_id(self) -> RunId:
        """Return what its run is called."""
        return RunId(job=self.job.name, tick_us=self.tick_us)


def due(jobs: Iterable[Job], last: Mapping[str, int], now_us: int) -> list[Due]:
    """Return what is due, at most one tick a job, the one that waits longest first.

    Args:
        last: per job the newest tick up to now that was taken, or since when the job is known; a job that is not
            there is not known yet, and not due.
    """
    found = [
        Due(job=job, tick_us=tick_us)
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
        schedule=Every(round(settings.rollout_seconds * 1e6)),
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
