"""SEMANTICS 9.1 to 9.4: each decision is about exactly the events of the log before its own, once, and replay proves it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skewless.contract.decisions import CONDITION_OUTPUTS, Crosses, DecisionStream
from skewless.contract.columns import Transform
from skewless.contract.errors import StoreError
from skewless.infra.decisions.decision_log import DecisionLog
from skewless.infra.decisions.exact_windows import ExactWindows
from skewless.infra.streams.port import EventStream, RebalanceListener
from skewless.infra.streams.worker import Worker
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.worlds.deciding import ALL, SECOND, DecidingWorld
from tests.worlds.plans import refs
from tests.worlds.streams import SOURCE, Traffic, drain

PARTITIONS = 3


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.streams.worker._LINGER_S", 0.0)
    monkeypatch.setattr("skewless.infra.streams.worker._RETRY_S", 0.02)
    monkeypatch.setattr("skewless.contract.windows.codec.ROLL_RECORDS", 6)


@pytest.fixture
def world(tmp_path: Path, server_url: str) -> DecidingWorld:
    """A project with a champion and states, and no event."""
    world = DecidingWorld(root=tmp_path / f"p{uuid.uuid4().hex[:6]}", url=server_url)
    world.publish()
    world.ensure()
    return world


def opening(broker: MemoryBroker) -> Callable[[RebalanceListener], EventStream]:
    return lambda owner: MemoryStream(broker, owner)


def feed(world: DecidingWorld, traffic: Traffic, broker: MemoryBroker, n: int = 40) -> None:
    world.clock.set(world.clock.now_us() + 7 * SECOND)
    for key, message in traffic.make(n, world.clock.now_us()):
        broker.append(key % PARTITIONS, message)


def work(world: DecidingWorld, broker: MemoryBroker, *, max_rows: int = 1_000) -> Worker:
    """Let a new worker take, decide and apply all events; return it, closed."""
    with world.store() as store:
        worker = world.worker(store, opening(broker), max_rows=max_rows)
        with world.deciding(store) as decider:
            worker.set_decider(decider)
            drain(worker, more=lambda: any(counts.lag != 0 for counts in decider.counts))
            worker.close()
            decider.close()
    return worker


@pytest.mark.parametrize("max_rows", [7, 1_000])
def test_9_2_a_decision_sees_exactly_the_events_before_its_own(world: DecidingWorld, max_rows: int) -> None:
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(max_rows)
    for _ in range(3):
        feed(world, traffic, broker)
        work(world, broker, max_rows=max_rows)
    assert world.check_decisions() > 60
    world.check()
