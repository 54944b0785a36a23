"""SEMANTICS 4.2: a worker waits, whichever of its calls of database, storage and online store fails, and goes on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.ingest.streams.port import Messages, RebalanceListener, StreamError
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.objects import FolderStorage
from skewless.infra.reads.online.redis_store import RedisWriter
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.worlds.fed_streams import PARTITIONS, feed, opening
from tests.worlds.streams import StreamWorld, Traffic, drain

CALLS: dict[type, tuple[str, ...]] = {
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


class Outage:
    """Counts calls; those from one to another fail, with their effect or without it."""

    def __init__(self, first: int, n: int, *, loses_reply: bool) -> None:
        self.first, self.last, self.loses_reply = first, first + n, loses_reply
        self.calls = 0

    def begin(self) -> bool:
        """Count a call; return whether it fails after its effect, and raise if it fails before."""
        self.calls += 1
        fails = self.first <= self.calls < self.last
        if fails and not self.loses_reply:
            raise StoreError("store", "answered 503", fix="wait")
        return fails

    def wrap(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*words: Any, **named: Any) -> Any:  # noqa: ANN401 - any method
            fails = self.begin()
            answer = method(*words, **named)
            if method.__name__ == "transaction":
                return self._around(answer, fails=fails)
            if fails:
                raise StoreError("store", "lost its reply", fix="wait")
            return answer

        return call

    @contextmanager
    def _around(self, context: Any, *, fails: bool) -> Iterator[Any]:  # noqa: ANN401 - any context
        with context as value:
            yield value
        if fails:
            raise StoreError("store", "lost its reply", fix="wait")


def run(world: StreamWorld, patch: pytest.MonkeyPatch, outage: Outage) -> None:
    """Let a worker take three batches of events over an outage, and check log and states."""
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(outage.first)
    with world.store() as store, patch.context() as patched:
        worker = world.worker(store, opening(broker))
        for kind, names in CALLS.items():
            for name in names:
                patched.setattr(kind, name, outage.wrap(getattr(kind, name)))
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
    first = draw.randrange(1, draw.choice((TAKE_OVER, MOST)))
    outage = Outage(first, draw.choice((1, 3, 9)), loses_reply=draw.random() < 0.5)
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
