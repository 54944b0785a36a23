"""Schedules against a walk through every moment, and what is due after any downtime or jump of the clock."""

from __future__ import annotations

from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.clock import from_us
from skewless.contract.errors import DefinitionError, RequestError
from skewless.training.scheduling.job import FixedInterval, Job, Schedule, find_due_ticks, find_job, parse_schedule

MINUTE = 60_000_000
DAY = 1_440 * MINUTE
LINES = st.sampled_from(["*/5 * * * *", "0 4 * * *", "17 3 * * 1", "0 0 1 * *", "@every 90s", "@every 7m", "@every 1d"])
TIMES = st.integers(1_600_000_000_000_000, 1_900_000_000_000_000)


def of(line: str) -> Schedule:
    schedule = parse_schedule("j", line)
    assert schedule is not None
    return schedule


def job(line: str, name: str = "j") -> Job:
    return Job(name=name, words=("x",), schedule=of(line), queue="data", limit_s=1.0)


@given(LINES, TIMES, st.integers(0, 40 * DAY))
def test_the_newest_moment_is_the_last_of_all_that_were_missed(line: str, after_us: int, length_us: int) -> None:
    schedule, until_us = of(line), after_us + length_us
    newest = schedule.latest(after_us, until_us)
    if newest is None:
        following = schedule.next(after_us)
        assert following is None or following > until_us
    else:
        assert after_us < newest <= until_us
        following = schedule.next(newest)
        assert following is None or following > until_us


@given(st.sampled_from(["*/5 * * * *", "@every 90s"]), TIMES)
def test_the_next_moments_are_those_of_the_calendar(line: str, after_us: int) -> None:
    step_us = 5 * MINUTE if line.startswith("*") else 90_000_000
    wanted = (after_us // step_us + 1) * step_us
    assert of(line).next(after_us) == wanted


def test_a_daily_line_fires_at_its_hour() -> None:
    moment = of("30 2 * * *").next(1_768_478_400_000_000)  # 2026-01-15 12:00
    assert moment is not None
    assert from_us(moment).isoformat() == "2026-01-16T02:30:00+00:00"


@pytest.mark.parametrize("line", ["@every", "@every 5", "@every 0s", "@every -1s", "@every 5y", "* * *", "never"])
def test_what_cannot_be_read_is_refused(line: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_schedule("drift m", line)
    assert (caught.value.thing, caught.value.value) == ("cron of job 'drift m'", line)


def test_off_is_no_schedule() -> None:
    assert parse_schedule("j", "off") is None


def test_a_downtime_is_one_tick_a_job_and_the_oldest_waits_first() -> None:
    jobs = [job("@every 5m", "b"), job("@every 1h", "a"), job("@every 1d", "c")]
    now_us = DAY + 2 * 60 * MINUTE + 7 * MINUTE
    found = find_due_ticks(jobs, dict.fromkeys("abc", DAY + 1), now_us)
    assert [(item.job.name, item.tick_us - DAY) for item in found] == [("a", 120 * MINUTE), ("b", 125 * MINUTE)]


@given(LINES, TIMES, st.lists(st.integers(-3 * DAY, 3 * DAY), max_size=30))
def test_whatever_the_clock_does_no_tick_comes_twice(line: str, now_us: int, jumps: list[int]) -> None:
    taken: list[int] = []
    the_job, since_us = job(line), now_us
    for jump in jumps:
        now_us += jump
        last = max([since_us, *takewhile(lambda tick_us: tick_us <= now_us, sorted(taken))])  # noqa: B023 - used here
        for item in find_due_ticks([the_job], {"j": last}, now_us):
            assert item.tick_us not in taken
            assert item.tick_us <= now_us
            taken.append(item.tick_us)


def test_a_job_that_is_not_wanted_or_not_known_is_not_due() -> None:
    unwanted = Job(
        name="u", words=("x",), schedule=FixedInterval(1), queue="traffic", limit_s=1.0, has_work=lambda: False
    )
    assert find_due_ticks([unwanted, job("@every 1s", "new")], {"u": 0}, DAY) == []


def test_a_job_that_is_none_is_named_with_those_there_are() -> None:
    with pytest.raises(RequestError, match="is not one of j"):
        find_job([job("@every 1s")], "k")
