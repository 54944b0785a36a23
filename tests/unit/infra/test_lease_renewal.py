"""A lease that is held: renewed, doubted in time, given up."""

from __future__ import annotations

import threading

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage.leases import Lease, LeaseRenewal, Leases
from tests.worlds.clock import SecondsClock
from tests.worlds.waiting import PATIENCE_S

LEASE = Lease(name="work", holder="here", token=1)


class FakeLeases(Leases):
    """Leases whose answers are set; an answer takes a second of the clock."""

    def __init__(self, clock: SecondsClock, ttl_s: float = 6.0) -> None:
        self.ttl_s = ttl_s
        self.answer: bool | None = True
        self._clock = clock

    def renew(self, lease: Lease) -> bool:
        assert lease == LEASE
        self._clock.now += 1.0
        if self.answer is None:
            raise StoreError("database", "did not answer", fix="start it")
        return self.answer


def held(clock: SecondsClock, leases: FakeLeases, beats: list[float]) -> LeaseRenewal:
    return LeaseRenewal(
        leases,
        LEASE,
        acquired_at=clock.now,
        on_renewed=lambda: beats.append(clock.now),
        monotonic=clock,
    )


def test_a_renewal_counts_from_when_it_was_asked_for() -> None:
    clock, beats = SecondsClock(), list[float]()
    holding = held(clock, FakeLeases(clock), beats)
    clock.now = 4.0
    holding.renew()
    assert beats == [5.0]
    clock.now = 9.9
    assert holding.is_held
    clock.now = 10.0
    assert not holding.is_held


def test_a_store_that_is_away_ends_it_with_its_time_and_not_before() -> None:
    clock, beats = SecondsClock(), list[float]()
    lease = FakeLeases(clock)
    holding = held(clock, lease, beats)
    lease.answer = None
    clock.now = 4.0
    holding.renew()
    assert holding.is_held
    clock.now = 6.0
    assert not holding.is_held
    lease.answer = True
    assert holding.renew()
    assert not holding.is_held  # it has lapsed for good
    assert beats == []


def test_a_lease_of_somebody_else_ends_it_at_once() -> None:
    clock, beats = SecondsClock(), list[float]()
    lease = FakeLeases(clock)
    holding = held(clock, lease, beats)
    lease.answer = False
    assert not holding.renew()
    assert not holding.is_held
    assert beats == []


def test_a_thread_renews_it_inside_the_block_and_not_after() -> None:
    beaten = threading.Event()
    leases = FakeLeases(SecondsClock(), ttl_s=0.03)
    with LeaseRenewal(leases, LEASE, acquired_at=0.0, on_renewed=beaten.set, monotonic=lambda: 0.0):
        assert beaten.wait(PATIENCE_S)
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]
