"""SEMANTICS 8.4: a watermark advances while no message waits, stops while one may, and never claims too much."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from skewless.contract.windows.hops import SECOND
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.log.log_columns import SEQ
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.port import Marker, OnlineStore
from skewless.infra.reads.online.redis_store import BlockingReader
from skewless.infra.reads.online.window_states import WindowStates
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.servers.node import Node
from tests.worlds.streams import BASE, IDS, StreamWorld, drain

PARTITIONS = 3


@dataclass
class WatermarkRig:
    """A world with a broker, and a worker or none; ``arrivals``: when each event came to the broker."""

    world: StreamWorld
    node: Node
    store: OnlineStore
    broker: MemoryBroker = field(default_factory=lambda: MemoryBroker(PARTITIONS))
    arrivals: dict[str, int] = field(default_factory=dict)
    worker: Worker | None = None

    def now(self, later_s: int = 0) -> int:
        self.world.clock.set(self.world.clock.now_us() + later_s * SECOND)
        return self.world.clock.now_us()

    def feed(self, n: int, chance: random.Random) -> None:
        self.world.clock.set(self.now() + 1)  # not at the very moment of a poll that is over
        for _ in range(n):
            name, now = f"e{len(self.arrivals)}", self.now()
            body = {"event": name, "id": chance.randrange(IDS), "ts": now, "x": 1.0, "y": None, "n": 1, "s": "a"}
            self.broker.append(chance.randrange(PARTITIONS), json.dumps(body).encode())
            self.arrivals[name] = now

    def join(self, max_rows: int = 1_000) -> Worker:
        """Let a worker take the place of the one before, which was killed."""
        if self.worker is not None:
            self.worker.close()
        self.worker = self.world.worker(self.store, lambda owner: MemoryStream(self.broker, owner), max_rows=max_rows)
        return self.worker

    def marks(self) -> dict[str, Marker]:
        """Return by marker what a server that has just started sees; nothing where the view is UNAVAILABLE."""
        reader, states = BlockingReader(self.world.url), WindowStates(self.world.plan)
        try:
            states.load_generations(reader.get_with_markers(states.pointers, [])[0])
            names = states.names({"id": list(range(IDS))}, IDS)
            rows, marks = reader.get_with_markers([name or b"" for name in names], states.markers)
        finally:
            reader.close()
        read = states.read(names, rows, MarkerHistory().check_markers(states.markers, marks), self.now()).reads["v"]
        found = {name: mark for name, mark in zip(states.markers, marks, strict=True) if mark is not None}
        return found if read.available else {}

    def watermark(self) -> int:
        """Return the watermark of the view; 0: unknown."""
        return min((mark.watermark_us for mark in self.marks().values()), default=0)

    def check(self) -> None:
        """Assert that all that had arrived by the watermark has been applied."""
        marks = self.marks()
        watermark = min((mark.watermark_us for mark in marks.values()), default=0)
        applied = {name.partition("applied/")[2]: mark.position for name, mark in marks.items()}
        logged = {row["event"]: (name, row[SEQ]) for name, rows in self.world.logged().items() for row in rows}
        for event, arrived in self.arrivals.items():
            if arrived <= watermark:
                assert event in logged, f"{event} came at {arrived - BASE}, and waits; watermark {watermark - BASE}"
                name, seq = logged[event]
                assert applied[name] >= seq, f"{event} is not applied; watermark {watermark - BASE}"


@pytest.fixture
def rig(world: StreamWorld, valkey: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[WatermarkRig]:
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._LINGER_S", 0.0)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._RETRY_S", 0.01)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._CHECK_S", 0.0)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._ADVANCE_S", 0.0)
    with ExitStack() as stack:
        yield WatermarkRig(world, valkey, stack.enter_context(world.store()))


def settled(rig: WatermarkRig) -> Worker:
    """Return a worker that has nothing to do, on states that are read."""
    rig.world.ensure()
    worker = rig.join()
    rig.feed(30, random.Random(0))
    drain(worker)
    worker.step()
    return worker


def test_8_4_a_worker_that_has_nothing_to_do_says_so(rig: WatermarkRig) -> None:
    worker = settled(rig)
    for later in (0, 1, 60, 3_600):
        now = rig.now(later)
        worker.step()
        assert rig.watermark() == now


def test_8_4_a_worker_that_is_gone_or_stuck_says_nothing(rig: WatermarkRig) -> None:
    worker = settled(rig)
    stood = rig.watermark()
    rig.now(60)
    assert rig.watermark() == stood
    worker.close()
    assert rig.watermark() == stood


def test_8_4_a_broker_that_is_away_holds_the_watermark(rig: WatermarkRig) -> None:
    worker = settled(rig)
    stood = rig.watermark()
    rig.broker.away = True
    for _ in range(5):
        rig.now(10)
        worker.step()
        assert rig.watermark() == stood
    rig.broker.away = False
    worker.step()
    assert rig.watermark() == rig.now()


def test_8_4_one_partition_of_which_messages_wait_holds_that_of_the_view(rig: WatermarkRig) -> None:
    settled(rig)
    worker = rig.join(max_rows=6)
    for _ in range(3):
        worker.step()
    stood = rig.watermark()
    rig.now(10)
    for i in range(40):
        body = {"event": f"w{i}", "id": 1, "ts": rig.now(), "x": 1.0, "y": None, "n": 1, "s": "a"}
        rig.broker.append(0, json.dumps(body).encode())
        rig.arrivals[f"w{i}"] = rig.now()
    for _ in range(5):
        rig.now(10)
        worker.step()
        assert rig.watermark() == stood
    drain(worker)
    worker.step()
    assert rig.watermark() == rig.now()


def test_8_4_messages_that_wait_for_their_batch_hold_the_watermark(
    rig: WatermarkRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = settled(rig)
    stood = rig.watermark()
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._LINGER_S", 1.0)
    worker._written_at, worker._batch_s = time.monotonic(), 1.0
    rig.now(10)
    rig.feed(5, random.Random(1))
    worker.step()
    assert any(partition_worker.waiting for partition_worker in worker._partition_workers.values())
    assert rig.watermark() == stood
    drain(worker)
    rig.check()


def test_8_4_what_was_lost_is_unknown_until_it_is_applied_again(rig: WatermarkRig) -> None:
    worker = settled(rig)
    rig.node.ask("FLUSHALL")
    assert rig.watermark() == 0
    rig.now(5)
    for _ in range(200):
        worker.step()
        rig.check()
        if rig.watermark() == rig.now():
            break
    assert rig.watermark() == rig.now()
    rig.world.check()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 3))])
def test_8_4_all_that_had_arrived_by_the_watermark_is_applied_whatever_happens(rig: WatermarkRig, seed: int) -> None:
    chance = random.Random(seed)
    settled(rig)
    for _ in range(60):
        luck = chance.random()
        if luck < 0.3:
            rig.now(chance.randrange(4))
            rig.feed(chance.choice((1, 5, 40)) if not rig.broker.away else 0, chance)
        elif luck < 0.36:
            rig.join(chance.choice((9, 30, 1_000)))
        elif luck < 0.42:
            rig.broker.away = not rig.broker.away
        elif luck < 0.44:
            rig.node.ask("FLUSHALL")
        elif rig.worker is not None:
            rig.worker.step()
        rig.check()
    rig.broker.away = False
    worker = rig.join()
    drain(worker)
    for _ in range(3):
        worker.step()
    assert rig.watermark() == rig.now()
    rig.world.check()


def test_8_4_states_that_are_built_say_nothing_of_what_waits_in_the_stream(rig: WatermarkRig) -> None:
    worker = settled(rig)
    worker.close()
    rig.now(10)
    rig.feed(20, random.Random(1))
    rig.now(3_600)
    with rig.world.store() as store, rig.world.backfiller(store) as backfiller:
        backfiller.build(rig.world.views[0])
    rig.check()
