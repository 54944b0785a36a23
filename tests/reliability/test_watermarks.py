"""SEMANTICS 8.4: a watermark moves while nothing waits, stands still while something may, and never says too much."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from skewless.contract.windows.hops import SECOND
from skewless.infra.log.accepted import SEQ
from skewless.infra.online.guard import Guard
from skewless.infra.online.port import Mark, OnlineStore
from skewless.infra.online.redis_store import BlockingReader
from skewless.infra.online.window_states import WindowStates
from skewless.infra.streams.memory_stream import MemoryBroker, MemoryStream
from skewless.infra.streams.worker import Worker
from tests.reliability.stream_world import BASE, IDS, StreamWorld, drain
from tests.servers.node import Node, running
from tests.servers.programs import program

PARTITIONS = 3


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(Node(program("valkey"), tmp_path_factory.mktemp("node"))) as one:
        yield one


@dataclass
class Place:
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

    def marks(self) -> dict[str, Mark]:
        """Return by marker what a server that has just started sees; nothing where the view is UNAVAILABLE."""
        reader, states = BlockingReader(self.world.url), WindowStates(self.world.plan)
        try:
            states.take(reader.get_marked(states.pointers, [])[0])
            names = states.names({"id": list(range(IDS))}, IDS)
            rows, marks = reader.get_marked([name or b"" for name in names], states.markers)
        finally:
            reader.close()
        read = states.read(names, rows, Guard().judge(states.markers, marks), self.now()).reads["v"]
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
def place(tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr("skewless.infra.streams.worker._LINGER_S", 0.0)
    monkeypatch.setattr("skewless.infra.streams.worker._RETRY_S", 0.01)
    monkeypatch.setattr("skewless.infra.streams.worker._LOOK_S", 0.0)
    monkeypatch.setattr("skewless.infra.streams.worker._BEAT_S", 0.0)
    node.ask("FLUSHALL")
    world = StreamWorld(root=tmp_path / "p", url=node.url)
    with ExitStack() as stack:
        yield Place(world, node, stack.enter_context(world.store()))


def settled(place: Place) -> Worker:
    """Return a worker that has nothing to do, on states that are read."""
    place.world.ensure()
    worker = place.join()
    place.feed(30, random.Random(0))
    drain(worker)
    worker.step()
    return worker


def test_8_4_a_worker_that_has_nothing_to_do_says_so(place: Place) -> None:
    worker = settled(place)
    for later in (0, 1, 60, 3_600):
        now = place.now(later)
        worker.step()
        assert place.watermark() == now


def test_8_4_a_worker_that_is_gone_or_stuck_says_nothing(place: Place) -> None:
    worker = settled(place)
    stood = place.watermark()
    place.now(60)
    assert place.watermark() == stood
    worker.close()
    assert place.watermark() == stood


def test_8_4_a_broker_that_is_away_holds_the_watermark(place: Place) -> None:
    worker = settled(place)
    stood = place.watermark()
    place.broker.away = True
    for _ in range(5):
        place.now(10)
        worker.step()
        assert place.watermark() == stood
    place.broker.away = False
    worker.step()
    assert place.watermark() == place.now()


def test_8_4_one_partition_of_which_messages_wait_holds_that_of_the_view(place: Place) -> None:
    settled(place)
    worker = place.join(max_rows=6)
    for _ in range(3):
        worker.step()
    stood = place.watermark()
    place.now(10)
    for i in range(40):
        body = {"event": f"w{i}", "id": 1, "ts": place.now(), "x": 1.0, "y": None, "n": 1, "s": "a"}
        place.broker.append(0, json.dumps(body).encode())
        place.arrivals[f"w{i}"] = place.now()
    for _ in range(5):
        place.now(10)
        worker.step()
        assert place.watermark() == stood
    drain(worker)
    worker.step()
    assert place.watermark() == place.now()


def test_8_4_messages_that_wait_for_their_batch_hold_the_watermark(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = settled(place)
    stood = place.watermark()
    monkeypatch.setattr("skewless.infra.streams.worker._LINGER_S", 1.0)
    worker._written_at = time.monotonic()
    place.now(10)
    place.feed(5, random.Random(1))
    worker.step()
    assert any(lane.waiting for lane in worker._lanes.values())
    assert place.watermark() == stood
    drain(worker)
    place.check()


def test_8_4_what_was_lost_is_unknown_until_it_is_applied_again(place: Place) -> None:
    worker = settled(place)
    place.node.ask("FLUSHALL")
    assert place.watermark() == 0
    place.now(5)
    for _ in range(200):
        worker.step()
        place.check()
        if place.watermark() == place.now():
            break
    assert place.watermark() == place.now()
    place.world.check()


@pytest.mark.parametrize("seed", range(3))
def test_8_4_all_that_had_arrived_by_the_watermark_is_applied_whatever_happens(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    settled(place)
    for _ in range(60):
        luck = chance.random()
        if luck < 0.3:
            place.now(chance.randrange(4))
            place.feed(chance.choice((1, 5, 40)) if not place.broker.away else 0, chance)
        elif luck < 0.36:
            place.join(chance.choice((9, 30, 1_000)))
        elif luck < 0.42:
            place.broker.away = not place.broker.away
        elif luck < 0.44:
            place.node.ask("FLUSHALL")
        elif place.worker is not None:
            place.worker.step()
        place.check()
    place.broker.away = False
    worker = place.join()
    drain(worker)
    for _ in range(3):
        worker.step()
    assert place.watermark() == place.now()
    place.world.check()


def test_8_4_states_that_are_built_say_nothing_of_what_waits_in_the_stream(place: Place) -> None:
    worker = settled(place)
    worker.close()
    place.now(10)
    place.feed(20, random.Random(1))
    place.now(3_600)
    with place.world.store() as store, place.world.bootstrapper(store) as bootstrapper:
        bootstrapper.build(place.world.views[0])
    place.check()
