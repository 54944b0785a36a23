"""A job: what is run, when, and for how long at most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from skewless.contract.errors import RequestError
from skewless.infra.jobs.run import RunId
from skewless.training.scheduling.schedule import Schedule

Lane = Literal["data", "models", "traffic"]


def always() -> bool:
    """Say yes.

    >>> always()
    True
    """
    return True


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
    is_wanted: Callable[[], bool] = always
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
