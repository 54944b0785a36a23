"""Cron lines mean what cron means by them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from skewless.contract.errors import DefinitionError
from skewless.infra.platform.jobs.cron import cron_trigger

START = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday


def fires(cron: str, days: int) -> list[datetime]:
    """Return every moment of the next days at which a line fires."""
    trigger, found = cron_trigger("j", cron), list[datetime]()
    moment = trigger.get_next_fire_time(None, START)
    while moment is not None and moment < START + timedelta(days=days):
        found.append(moment)
        moment = trigger.get_next_fire_time(moment, moment + timedelta(microseconds=1))
    return found


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("*", "Mon Tue Wed Thu Fri Sat Sun"),
        ("0", "Sun"),
        ("7", "Sun"),
        ("1", "Mon"),
        ("6", "Sat"),
        ("1-5", "Mon Tue Wed Thu Fri"),
        ("0-2", "Sun Mon Tue"),
        ("5-7", "Fri Sat Sun"),
        ("1,3,0", "Mon Wed Sun"),
        ("1-5/2", "Mon Wed Fri"),
        ("*/3", "Sun Wed Sat"),
        ("sun,2", "Sun Tue"),
        ("mon-fri", "Mon Tue Wed Thu Fri"),
    ],
)
def test_weekdays(field: str, names: str) -> None:
    found = fires(f"30 4 * * {field}", 14)
    assert {moment.strftime("%a") for moment in found} == set(names.split())
    assert len(found) == 2 * len(names.split())
    assert {(moment.hour, moment.minute) for moment in found} == {(4, 30)}


def test_the_other_fields_are_cron_in_utc() -> None:
    assert len(fires("*/5 * * * *", 1)) == 24 * 12
    assert fires("15 3 2 1,2 *", 60) == [datetime(2026, month, 2, 3, 15, tzinfo=UTC) for month in (1, 2)]


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "* * * * * *", "60 * * * *", "* * * * 8", "* * * * 5-2", "every day", "* * * * x"]
)
def test_a_line_that_cannot_be_read_is_named(cron: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        cron_trigger("j", cron)
    assert (caught.value.thing, caught.value.value) == ("cron of job 'j'", cron)
