"""SEMANTICS 4.2: a worker waits, whichever of its calls of database, storage and online store fails, and goes on."""

from __future__ import annotations

import random
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from skewless.infra.ingest.streams.port import Messages, RebalanceListener, StreamError
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.platform.storage import cloud_storage
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.objects import FolderStorage
from skewless.infra.reads.online.redis_store import RedisWriter
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.servers.faulty_storage import TROUBLES, FaultyStorage, Trouble
from tests.servers.object_storage import ObjectStorageServer, object_address
from tests.worlds.addresses import ProjectAddresses
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


def take_three(world: StreamWorld, traffic: Traffic, broker: MemoryBroker, worker: Worker) -> None:
    """Let a worker take three batches of events to the end."""
    for _ in range(3):
        feed(world, traffic, broker, n=20)
        for _ in range(6):
            worker.step()
    drain(worker)
    worker.close()


def run(world: StreamWorld, patch: pytest.MonkeyPatch, outage: Outage) -> None:
    """Let a worker take three batches of events over an outage, and check log and states."""
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(outage.first)
    with world.store() as store, patch.context() as patched:
        worker = world.worker(store, opening(broker))
        outage.inject(patched, CALLS)
        take_three(world, traffic, broker, worker)
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


@pytest.fixture
def faulty(
    object_server: ObjectStorageServer, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyStorage]:
    """A proxy before a bucket, whose clients soon give up; ``bucket_url`` sets the credentials."""
    assert bucket_url.startswith("s3:")
    impatient = {"init_backoff": timedelta(milliseconds=5), "max_backoff": timedelta(milliseconds=5), "base": 2}
    retries = {"max_retries": 1, "retry_timeout": timedelta(seconds=5), "backoff": impatient}
    monkeypatch.setattr(cloud_storage, "_RETRIES", retries)
    monkeypatch.setattr(cloud_storage, "_TIMEOUTS", cloud_storage._TIMEOUTS | {"read_timeout": "1s", "timeout": "2s"})
    faulty = FaultyStorage(object_server.endpoint, 1.5)
    with faulty.running():
        yield faulty


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, FEW))])
def test_a_bucket_in_trouble(world: StreamWorld, faulty: FaultyStorage, trouble: Trouble, seed: int) -> None:
    """Two workers after each other, of which the second one has no copies."""
    addresses = ProjectAddresses(storage_url=object_address(faulty.endpoint, uuid.uuid4().hex))
    world = replace(world, addresses=addresses)
    world.ensure()
    draw = random.Random(seed)
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(seed)
    with world.store() as store:
        for _ in range(2):
            shutil.rmtree(world.root / "cache", ignore_errors=True)
            faulty.begin(draw.randrange(1, 6), draw.choice((2, 4)), trouble)
            take_three(world, traffic, broker, world.worker(store, opening(broker)))
    world.check()
    traffic.check(world)
    assert faulty.troubled > 1


class Denied(MemoryStream):
    """Refuses for good."""

    def poll(self, limit: int, timeout_s: float) -> list[Messages]:
        raise StreamError("broker", "has no rights for this", value=(limit, timeout_s), fix="ask for them")


def test_a_worker_ends_where_the_broker_refuses_for_good(world: StreamWorld) -> None:
    def join(owner: RebalanceListener) -> Denied:
        return Denied(MemoryBroker(PARTITIONS), owner)

    with world.store() as store, pytest.raises(StreamError, match="has no rights"):
        world.worker(store, join).run(lambda: True)
