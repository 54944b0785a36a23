"""Every way from one state of a breaker to another."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from skewless.serving.prediction.feature_reads import Breaker, BreakerState


@dataclass
class ClockedBreaker:
    """A breaker with its clock in the test's hand."""

    now: float = 100.0
    trips: int = 0
    breaker: Breaker = field(init=False)

    def __post_init__(self) -> None:
        self.breaker = Breaker(failures=3, seconds=2.0, on_trip=self._trip, now=lambda: self.now)

    def _trip(self) -> None:
        self.trips += 1

    def fail(self, times: int) -> None:
        for _ in range(times):
            assert self.breaker.allow_call()
            self.breaker.record_failure()


@pytest.fixture
def clocked() -> ClockedBreaker:
    return ClockedBreaker()


@pytest.fixture
def tripped(clocked: ClockedBreaker) -> ClockedBreaker:
    """One that has just opened."""
    clocked.fail(3)
    assert (clocked.breaker.state, clocked.trips) == (BreakerState.OPEN, 1)
    return clocked


def test_it_stays_closed_below_the_limit(clocked: ClockedBreaker) -> None:
    clocked.fail(2)
    assert (clocked.breaker.state, clocked.breaker.allow_call(), clocked.trips) == (BreakerState.CLOSED, True, 0)


def test_failures_count_only_in_a_row(clocked: ClockedBreaker) -> None:
    for _ in range(4):
        clocked.fail(2)
        clocked.breaker.record_success()
    assert (clocked.breaker.state, clocked.trips) == (BreakerState.CLOSED, 0)
    clocked.fail(3)
    assert clocked.breaker.state is BreakerState.OPEN


@pytest.mark.parametrize(("later", "allowed"), [(0.0, False), (1.999, False), (2.0, True), (50.0, True)])
def test_it_asks_nobody_for_a_while(tripped: ClockedBreaker, later: float, *, allowed: bool) -> None:
    tripped.now += later
    assert tripped.breaker.allow_call() is allowed
    assert tripped.breaker.state is (BreakerState.HALF_OPEN if allowed else BreakerState.OPEN)


def test_after_the_pause_one_attempt_is_made(tripped: ClockedBreaker) -> None:
    tripped.now += 2.0
    assert [tripped.breaker.allow_call() for _ in range(4)] == [True, False, False, False]


def test_an_attempt_that_succeeds_closes_it(tripped: ClockedBreaker) -> None:
    tripped.now += 2.0
    assert tripped.breaker.allow_call()
    tripped.breaker.record_success()
    assert tripped.breaker.state is BreakerState.CLOSED
    tripped.fail(2)
    assert tripped.breaker.state is BreakerState.CLOSED  # failures before it are forgotten


def test_an_attempt_that_fails_opens_it_again(tripped: ClockedBreaker) -> None:
    tripped.now += 2.0
    tripped.fail(1)
    assert (tripped.breaker.state, tripped.trips) == (BreakerState.OPEN, 2)
    tripped.now += 1.9
    assert not tripped.breaker.allow_call()
    tripped.now += 0.2
    assert tripped.breaker.allow_call()


def test_an_attempt_that_never_reports_is_followed_by_another(tripped: ClockedBreaker) -> None:
    tripped.now += 2.0
    assert tripped.breaker.allow_call()
    tripped.now += 1.9
    assert not tripped.breaker.allow_call()
    tripped.now += 0.2
    assert [tripped.breaker.allow_call() for _ in range(2)] == [True, False]
    tripped.breaker.record_success()
    assert tripped.breaker.state is BreakerState.CLOSED


def test_failures_that_come_late_are_no_second_trip(tripped: ClockedBreaker) -> None:
    tripped.now += 1.0
    tripped.breaker.record_failure()
    assert (tripped.breaker.state, tripped.trips) == (BreakerState.OPEN, 1)


def test_states_are_numbers_for_the_metrics() -> None:
    assert {state.name: float(state) for state in BreakerState} == {"CLOSED": 0.0, "HALF_OPEN": 1.0, "OPEN": 2.0}
