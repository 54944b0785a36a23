"""Contestants run in processes of their own, take turns, and must agree."""

from __future__ import annotations

import pytest

from benchmarks import trial
from benchmarks.contestant import Contestant, ContestantError, Race, race
from benchmarks.meter import Lap, Meter, Report

MB = 1_000_000


def sleeper(name: str, **arguments: object) -> Contestant:
    return Contestant(name=name, entrant=trial.sleeper, arguments=arguments)


def report(seconds: float) -> Report:
    lap = Lap(seconds=seconds, cpu_seconds=0, base_bytes=0, peak_bytes=1)
    return Report(laps={"work": [lap]}, facts={}, digest="-")


def test_a_child_reports_its_time_memory_and_facts() -> None:
    measured = sleeper("large", seconds=0.05, megabytes=40).run()
    assert measured.seconds() >= 0.05
    assert 40 * MB <= measured.grown_bytes() < 60 * MB
    assert measured.peak_bytes() > measured.grown_bytes()
    assert measured.facts == {"held": 40 * MB}


def test_the_peak_of_a_lap_forgets_what_came_before() -> None:
    measured = Contestant(name="spike", entrant=trial.spike, arguments={"megabytes": 80}).run()
    assert measured.peak_bytes("large") - measured.peak_bytes("small") > 70 * MB


def test_the_seconds_of_a_lap_are_those_of_one_repetition_and_the_median_of_all() -> None:
    meter = Meter(laps={"work": [*report(1).laps["work"], *report(9).laps["work"], *report(2).laps["work"]]})
    assert meter.report("-").seconds() == 2


def test_contestants_take_turns_and_those_that_agree_are_compared() -> None:
    done = race([sleeper("fast", seconds=0.0), sleeper("slow", seconds=0.5)], rounds=1)
    assert done.ratio("slow", "fast") > 1 > done.ratio("fast", "slow")


def test_a_contestant_with_another_result_fails_the_race() -> None:
    with pytest.raises(ContestantError, match="wrong has another result than right"):
        race([sleeper("right", seconds=0), sleeper("wrong", seconds=0, result="other")], rounds=1)


def test_a_contestant_that_fails_says_why() -> None:
    with pytest.raises(ContestantError, match="planted, after 0 laps"):
        Contestant(name="broken", entrant=trial.failure).run()


def test_a_contestant_that_is_stuck_is_ended() -> None:
    with pytest.raises(ContestantError, match="stuck did not end"):
        Contestant(name="stuck", entrant=trial.sleeper, arguments={"seconds": 60}, timeout_s=0.5).run()


def test_ratios_are_taken_round_by_round_and_a_lone_round_stands_for_all() -> None:
    done = Race(
        reports={"a": [report(1), report(2), report(3)], "b": [report(2), report(2), report(2)], "c": [report(4)]}
    )
    assert done.median("a") == 2
    assert done.ratio("a", "b") == 1.0
    assert done.ratio("a", "c") == 0.5
    assert done.ratio("c", "a") == 2.0
