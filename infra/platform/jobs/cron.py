"""Parses cron lines: five fields in UTC; Sunday is 0 or 7."""

from __future__ import annotations

import re

from apscheduler.triggers.cron import CronTrigger

from skewless.contract.errors import DefinitionError

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NUMBERS = re.compile(r"(?:(?P<all>\*)|(?P<first>[0-7])(?:-(?P<last>[0-7]))?)(?:/(?P<step>[1-7]))?", re.ASCII)


def cron_trigger(job: str, cron: str) -> CronTrigger:
    """Return the trigger that starts a job at the times of a cron line.

    Raises:
        DefinitionError: the line cannot be read.
    """
    fields = cron.split()
    try:
        return CronTrigger.from_crontab(" ".join([*fields[:4], *map(weekdays, fields[4:])]), timezone="UTC")
    except ValueError as error:
        raise DefinitionError(
            f"cron of job {job!r}", str(error), value=cron, fix="write five fields, for example '0 4 * * *'"
        ) from error


def weekdays(field: str) -> str:
    """Return the weekday field with names, because APScheduler counts from Monday and cron from Sunday.

    >>> [weekdays(field) for field in ("*", "0", "1-5", "5-7", "*/2", "mon,7")]
    ['*', 'sun', 'mon,tue,wed,thu,fri', 'fri,sat,sun', 'sun,tue,thu,sat', 'mon,sun']
    """
    return ",".join(_name_days(part) for part in field.split(","))


def _name_days(part: str) -> str:
    match = _NUMBERS.fullmatch(part)
    if match is None or part == "*":
        return part
    first = 0 if match["all"] else int(match["first"])
    last = 6 if match["all"] else int(match["last"] or first)
    return ",".join(_DAYS[first : last + 1 : int(match["step"] or 1)]) or part
