"""SEMANTICS 4.2: a worker waits, whichever of its calls of database, storage and online store fails, and goes on."""

from __future__ import annotations

import random

import pytest

from skewless.infra.ingest.streams.port import Messages, RebalanceListener, StreamError
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.objects import FolderStorage
from skewless.infra.reads.online.redis_store import RedisWriter
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.worlds.fed_streams import PARTITIONS, feed, opening
from tests.worlds.outages import Calls, Outage
from tests.worlds.streams import StreamWorld, Traffic, drain

CALLS: Calls = {
    Database: ("query", "execute", "transaction"),
    FolderStorage: ("put", "put_file", "local_path", "describe"),
    RedisWriter: ("append", "read_markers", "set_markers", "refresh_markers"),
}
MOST = 100  # a call of the run that is certain to come
TAKE_OVER = 10  # calls until all partitions are owned
FEW = 12


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"_LINGER_S": 0.005, "_RETRY_S": 0.005, "_CHECK_S": 0.05, "_SAVE_S": 0.05}.items():
        monkeypatch.setattr(f"skewless.infra.ingest.streams.worker.{name}", seconds)


def run(world: StreamWorld, patch: pytest.MonkeyPatch, outage: Outage) -> None:
    """Let a worker take three batches of events over an outage, and check log and states."""
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(outage.first)
    with world.store() as store, patch.context() as patched:
        worker = world.worker(store, opening(broker))
        outage.inject(patched, CALLS)
        for _ in range(3):
            feed(world, traffic, broker, n=20)
            for _ in range(6):
                worker.step()
        drain(worker)
        worker.close()
    world.check()
    traffic.check(world)
    assert worker.counts.accepted + worker.counts.rereads >= len(traffic.good)


@pytest.mark.parametrize(
    "seed", [*range(FEW), *(pytest.param(n, marks=pytest.mark.soak) for n in range(FEW, 20 * FEW))]
)
def test_4_2_any_call_may_fail(world: StreamWorld, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    world.ensure()
    draw = random.Random(seed)
    outage = Outage.draw(draw, draw.choice((TAKE_OVER, MOST)), faults=("refused", "reply lost"))
    run(world, monkeypatch, outage)
    assert outage.calls > MOST


class Denied(MemoryStream):
    """Refuses for good."""

    def poll(self, limit: int, timeout_s: float) -> list[Messages]:
        raise StreamError("broker", "has no rights for this", value=(limit, timeout_s), fix="ask for them")


def test_a_worker_ends_where_the_broker_refuses_for_good(world: StreamWorld) -> None:
    def join(owner: RebalanceListener) -> Denied:
        return Denied(MemoryBroker(PARTITIONS), owner)

    with world.store() as store, pytest.raises(StreamError, match="has no rights"):
        world.worker(store, join).run(lambda: True)
