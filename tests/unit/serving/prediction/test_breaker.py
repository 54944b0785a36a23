"""Every way from one state of a breaker to another."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from skewless.serving.prediction.breaker import Breaker, State


@dataclass
class World:
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
            assert self.breaker.allows()
            self.breaker.failed()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def opened(world: World) -> World:
    """One that has just opened."""
    world.fail(3)
    assert (world.breaker.state, world.trips) == (State.OPEN, 1)
    return world


def test_it_stays_closed_below_the_limit(world: World) -> None:
    world.fail(2)
    assert (world.breaker.state, world.breaker.allows(), world.trips) == (State.CLOSED, True, 0)


def test_failures_count_only_in_a_row(world: World) -> None:
    for _ in range(4):
        world.fail(2)
        world.breaker.succeeded()
    assert (world.breaker.state, world.trips) == (State.CLOSED, 0)
    world.fail(3)
    assert world.breaker.state is State.OPEN


@pytest.mark.parametrize(("later", "allowed"), [(0.0, False), (1.999, False), (2.0, True), (50.0, True)])
def test_it_asks_nobody_for_a_while(opened: World, later: float, *, allowed: bool) -> None:
    opened.now += later
    assert opened.breaker.allows() is allowed
    assert opened.breaker.state is (State.HALF_OPEN if allowed else State.OPEN)


def test_after_the_pause_one_attempt_is_made(opened: World) -> None:
    opened.now += 2.0
    assert [opened.breaker.allows() for _ in range(4)] == [True, False, False, False]


def test_an_attempt_that_succeeds_closes_it(opened: World) -> None:
    opened.now += 2.0
    assert opened.breaker.allows()
    opened.breaker.succeeded()
    assert opened.breaker.state is State.CLOSED
    opened.fail(2)
    assert opened.breaker.state is State.CLOSED  # failures before it are forgotten


def test_an_attempt_that_fails_opens_it_again(opened: World) -> None:
    opened.now += 2.0
    opened.fail(1)
    assert (opened.breaker.state, opened.trips) == (State.OPEN, 2)
    opened.now += 1.9
    assert not opened.breaker.allows()
    opened.now += 0.2
    assert opened.breaker.allows()


def test_an_attempt_that_never_reports_is_followed_by_another(opened: World) -> None:
    opened.now += 2.0
    assert opened.breaker.allows()
    opened.now += 1.9
    assert not opened.breaker.allows()
    opened.now += 0.2
    assert [opened.breaker.allows() for _ in range(2)] == [True, False]
    opened.breaker.succeeded()
    assert opened.breaker.state is State.CLOSED


def test_failures_that_come_late_are_no_second_trip(opened: World) -> None:
    opened.now += 1.0
    opened.breaker.failed()
    assert (opened.breaker.state, opened.trips) == (State.OPEN, 1)


def test_states_are_numbers_for_the_metrics() -> None:
    assert {state.name: float(state) for state in State} == {"CLOSED": 0.0, "HALF_OPEN": 1.0, "OPEN": 2.0}
