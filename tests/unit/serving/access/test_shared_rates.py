"""A rate that all workers share: never more than documented, never a wait, and the own share without a store."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from skewless.contract.errors import StoreError
from skewless.infra.reads.online.shared_rates import Demand, Grant
from skewless.serving.access.rates import RateSharing, SharedBucket, TokenBucket
from tests.worlds.waiting import until


@dataclass
class Store:
    """The script of Redis in Python, with a clock of its own."""

    now: float = 5_000.0
    is_away: bool = False
    full_at: dict[str, float] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)

    def take(self, demands: Sequence[Demand]) -> list[Grant]:
        if self.is_away:
            raise StoreError("Redis", "did not answer", fix="start it")
        self.calls.append(len(demands))
        return [self._take(demand) for demand in demands]

    def _take(self, demand: Demand) -> Grant:
        period = 1 / demand.rate
        full = max(self.now, self.full_at.get(demand.name, 0.0)) + demand.served * period
        room = math.floor((self.now + demand.size * period - full) / period + 1e-9)
        granted = min(demand.wanted, max(0, room))
        self.full_at[demand.name] = full = full + granted * period
        return Grant(requests=granted, wait_s=max(0.0, full + period - demand.size * period - self.now))

    def close(self) -> None:
        """Do nothing."""


class Workers:
    """Workers whose demands reach the store after a delay, in simulated time."""

    def __init__(self, n: int, rate: float, delay_s: float) -> None:
        self.store, self.delay_s = Store(), delay_s
        self.waiting: list[tuple[float, SharedBucket]] = []
        self.now = 100.0
        self.buckets = [SharedBucket("web", rate, TokenBucket(rate / n), self._ask) for _ in range(n)]

    def _ask(self, bucket: SharedBucket) -> None:
        self.waiting.append((self.now + self.delay_s, bucket))

    def move(self, seconds: float) -> None:
        self.now += seconds
        self.store.now += seconds
        due = [bucket for at, bucket in self.waiting if at <= self.now]
        self.waiting = [(at, bucket) for at, bucket in self.waiting if at > self.now]
        for bucket in due:
            demand = bucket.demand()
            bucket.fill(demand, self.store.take([demand])[0], self.now)


@pytest.mark.parametrize("rate", [0.5, 1.0, 20.0, 1_000.0])
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("load", [0.3, 1.0, 5.0])
def test_the_workers_together_keep_the_rate(rate: float, n: int, load: float) -> None:
    workers, chance = Workers(n, rate, delay_s=0.002), random.Random(7)
    seconds = max(20.0, 40 / rate)
    step = min(0.01, max(0.001, 1 / (rate * load * 4)))
    one, passed, passed_by_one = TokenBucket(rate), 0, 0
    while workers.now < 100.0 + seconds:
        workers.move(step)
        if chance.random() < rate * load * step:
            passed_by_one += one.take(workers.now) == 0.0
            passed += workers.buckets[chance.randrange(n)].take(workers.now) == 0.0
    chunk = max(1, int(rate * 0.05))
    # The burst of a full bucket, and what each worker has on credit or in advance.
    assert passed <= rate * seconds + max(rate, 1.0) + n * (2 * chunk + max(rate / n, 1.0))
    # Hardly less than one bucket for all would let through.
    assert passed >= passed_by_one * 0.95 - n * chunk
    # Few questions, however many requests: about 20 a second and worker, and one for each burst that is refused.
    assert len(workers.store.calls) <= 2 * n * (seconds * 21 + 2)


def test_a_demand_pays_what_was_served_on_credit() -> None:
    asked: list[SharedBucket] = []
    bucket = SharedBucket("web", 100.0, TokenBucket(32.0), asked.append)
    # The credit is one chunk, a twentieth of the rate, and the burst of the worker's share.
    assert [bucket.take(1.0) for _ in range(37)] == [0.0] * 37
    assert bucket.take(1.0) > 0.0
    assert (asked, bucket.demand().served, bucket.demand().wanted) == ([bucket], 37, 5)
    bucket.fill(bucket.demand(), Grant(requests=2, wait_s=0.0), 1.0)
    assert [bucket.take(1.0) for _ in range(2)] == [0.0] * 2


def test_a_refusal_says_when_the_store_has_a_request_again() -> None:
    bucket = SharedBucket("web", 1.0, TokenBucket(1.0), lambda _: None)
    assert bucket.take(10.0) == 0.0
    bucket.fill(bucket.demand(), Grant(requests=0, wait_s=3.0), 10.0)
    assert bucket.take(11.0) == pytest.approx(2.0)
    assert bucket.take(13.0) == 0.0


def test_a_store_that_hangs_leaves_the_own_share() -> None:
    bucket = SharedBucket("web", 100.0, TokenBucket(25.0), lambda _: None)
    passed = sum(bucket.take(1.0 + i / 1_000) == 0.0 for i in range(1_000))
    # A chunk, the burst of the share, and the share itself.
    assert 50 <= passed <= 5 + 25 + 25


def test_without_the_store_the_own_share_counts_and_that_is_logged_once() -> None:
    store = Store(is_away=True)
    now = [10.0]
    sharing = RateSharing(store, 0.25, clock=lambda: now[0])
    bucket = sharing.new_bucket("key/web", 40.0)
    assert isinstance(bucket, SharedBucket)
    with capture_logs() as logs:
        assert bucket.take(now[0]) == 0.0
        until(lambda: logs)
        until(lambda: bucket._away_until > now[0])
        assert sum(bucket.take(now[0] + i / 1_000) == 0.0 for i in range(900)) == pytest.approx(19, abs=2)
        store.is_away = False
        now[0] += 2
        bucket.take(now[0])
        until(lambda: len(logs) == 2)
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("rates_not_shared", "warning"),
        ("rates_shared", "info"),
    ]
    sharing.close()


def test_demands_of_many_callers_travel_together() -> None:
    gate = threading.Event()

    class Slow(Store):
        def take(self, demands: Sequence[Demand]) -> list[Grant]:
            gate.wait(10)
            return super().take(demands)

    store = Slow()
    sharing = RateSharing(store, 1.0)
    buckets = [sharing.new_bucket(f"key/{i}", 10.0) for i in range(50)]
    for bucket in buckets:
        assert bucket.take(1.0) == 0.0
    gate.set()
    until(lambda: sum(store.calls) == 50)
    assert len(store.calls) <= 3
    sharing.close()
    assert not sharing._thread.is_alive()
