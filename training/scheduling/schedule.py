"""When a job is due: by a cron line or at a fixed distance, as pure functions of the time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from apscheduler.triggers.cron import CronTrigger

from skewless.contract.clock import from_us, to_us
from skewless.contract.errors import DefinitionError
from skewless.infra.jobs.cron import cron_trigger

_EVERY = re.compile(r"@every (?P<number>\d+(?:\.\d+)?)(?P<unit>[smhd])", re.ASCII)
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_OFF = "off"
_FIRST_LOOK_US = 60_000_000
_WIDER = 4


class Schedule(Protocol):
    """A rising row of moments, microseconds of the project's clock."""

    def next(self, after_us: int) -> int | None:
        """Return the first moment after another; None if there is none."""
        ...

    def newest(self, after_us: int, until_us: int) -> int | None:
        """Return the last moment after one and not after the other; None if there is none."""
        ...


@dataclass(frozen=True)
class Every:
    """Moments at a fixed distance, counted from the epoch.

    >>> Every(10).next(25), Every(10).newest(25, 59), Every(10).newest(50, 59)
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
    Every(distance_us=2000000)

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
    return Every(distance_us)
