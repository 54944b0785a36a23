"""SEMANTICS 4.4: a worker whose clock is wrong owns no partition, so it harms no event and no window."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from skewless.contract.clock import ManualClock
from skewless.contract.errors import StoreError
from skewless.contract.settings import Settings
from skewless.contract.windows.hops import SECOND
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.reads.online.port import OnlineStore
from tests.memory_stream import MemoryBroker
from tests.worlds.fed_streams import PARTITIONS, feed, opening
from tests.worlds.streams import StreamWorld, Traffic, drain

LIMIT_US = int(Settings().skew_limit_ms * 1_000)
WRONG = (LIMIT_US + 1, -LIMIT_US - 1, 300 * SECOND, -300 * SECOND)
RIGHT = (0, LIMIT_US, -LIMIT_US)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"_LINGER_S": 0.0, "_RETRY_S": 0.0, "_CHECK_S": 0.0}.items():
        monkeypatch.setattr(f"skewless.infra.ingest.streams.worker.{name}", seconds)


class ClockedWorker:
    """A worker on a machine whose clock differs from that of the store, and with it all that the worker does."""

    def __init__(self, world: StreamWorld, store: OnlineStore, broker: MemoryBroker) -> None:
        self.offset_us = 0
        self.is_store_away = False
        self.worker: Worker = world.worker(store, opening(broker))
        self.clock = ManualClock(world.clock.now_us())
        self.worker.streams = replace(self.worker.streams, clock=self.clock)
        store.clock_offset_us = self._measure  # type: ignore[method-assign]

    def _measure(self) -> int:
        if self.is_store_away:
            raise StoreError("online store", "is unavailable", fix="start it")
        return -self.offset_us

    def step(self, now_us: int) -> None:
        self.clock.set(now_us + self.offset_us)
        self.worker.step()


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(n, marks=pytest.mark.soak) for n in range(6, 60))])
def test_4_4_a_worker_with_a_wrong_clock_owns_nothing(world: StreamWorld, seed: int) -> None:
    world.ensure()
    draw, traffic, broker = random.Random(seed), Traffic(seed), MemoryBroker(PARTITIONS)
    with world.store() as one, world.store() as two:
        right, wrong = ClockedWorker(world, one, broker), ClockedWorker(world, two, broker)
        given_up = 0
        for _ in range(8):
            wrong.offset_us = draw.choice((*WRONG, *RIGHT))
            feed(world, traffic, broker)
            for _ in range(4):
                wrong.step(world.clock.now_us())
                right.step(world.clock.now_us())
                if abs(wrong.offset_us) > LIMIT_US:
                    assert (wrong.worker.counts.partitions, wrong.worker._partition_workers) == (0, {})
                    assert "clock of this machine" in str(wrong.worker.counts.trouble)
                    given_up += 1
        wrong.offset_us = 0
        drain(right.worker, wrong.worker)
        assert given_up > 0
    world.check()
    traffic.check(world)


def test_a_store_that_is_away_says_nothing_about_the_clock(world: StreamWorld) -> None:
    world.ensure()
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(0)
    with world.store() as store:
        clocked = ClockedWorker(world, store, broker)
        for is_wrong in (False, True):
            clocked.is_store_away, clocked.offset_us = False, 300 * SECOND if is_wrong else 0
            clocked.step(world.clock.now_us())
            clocked.is_store_away = True
            feed(world, traffic, broker)
            clocked.step(world.clock.now_us())
            assert bool(clocked.worker._partition_workers) is not is_wrong  # as before
