"""SEMANTICS 9.3: an event is decided once and delivered, whichever durable step a worker is killed before or after."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import skewless.infra.reads.online.servers
import skewless_decisions.delivery
from plugins.decisions.tests.deciding import DecidingWorld
from plugins.decisions.tests.decision_kills import deciding_world, delivered, order_of, work
from skewless.contract.windows.hops import SECOND
from tests.reliability.kills import SIDES, Case, Hits, Victims, kind_of, table_of, victims
from tests.reliability.losses import DURABLE
from tests.reliability.stream_kills import open_stream, send
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.streams import Traffic

EVENTS = 20
DECIDED = "commit-decided_positions-log_partitions-segments"  # decision, position and end of the log at once
POINTS = ("commit-log_partitions-segments", DECIDED, "send", "sync-object", "commit-sink_positions")
KINDS = {DECIDED, "commit", "commit-log_partitions-segments", "commit-sink_positions", "send", "sync-object"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._LINGER_S", 0.0)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._RETRY_S", 0.02)
    monkeypatch.setattr("skewless.contract.windows.codec.ROLL_RECORDS", 6)
    monkeypatch.setattr(skewless.infra.reads.online.servers.slices, "__defaults__", (3, 0))
    monkeypatch.setattr(skewless_decisions.delivery, "_COUNT_S", 0.0)


@pytest.fixture
def deciding(tmp_path: Path, valkey: Node, addresses: ProjectAddresses) -> DecidingWorld:
    """A project with a champion, a stream and a sink, and no states yet, on an emptied server."""
    valkey.ask("FLUSHALL")
    deciding = deciding_world(tmp_path / f"p{uuid.uuid4().hex[:6]}", valkey.url, addresses=addresses)
    deciding.publish()
    deciding.ensure()
    return deciding


@pytest.fixture(scope="module")
def dying(addresses: ProjectAddresses) -> Iterator[Victims]:  # noqa: ARG001 - sets the credentials of new processes
    with victims("plugins.decisions.tests.decision_kills") as running:
        yield running


def kill_at(deciding: DecidingWorld, traffic: Traffic, dying: Victims, cases: Sequence[Case]) -> Hits:
    """Kill one worker per case while new events come; return which kinds of steps were hit, and how often."""
    hit = Hits()
    for point, side in cases:
        feed(deciding, traffic)
        hit[kind_of(point), side] += dying.killed(point, side, **order_of(deciding))
    return hit


def feed(deciding: DecidingWorld, traffic: Traffic) -> None:
    deciding.clock.set(deciding.clock.now_us() + 61 * SECOND)
    send(deciding.root, traffic.make(EVENTS, deciding.clock.now_us()))


def check(deciding: DecidingWorld, traffic: Traffic, node: Node) -> int:
    """Assert that each event was decided once, as the oracle does, and delivered in order; return the repetitions."""
    work(deciding, open_stream(deciding.root))
    traffic.check(deciding)
    assert deciding.check_decisions() == len(traffic.good)
    ids, received = [row["id"] for row in deciding.log_rows()], delivered(node, deciding)
    assert list(dict.fromkeys(received)) == ids, "a decision was not delivered, or not in the order of the log"
    deciding.check()
    return sum(Counter(received).values()) - len(ids)


@pytest.mark.parametrize("addresses", ["defaults"], indirect=True)
def test_9_3_workers_are_killed_around_each_durable_step_of_a_decision(
    deciding: DecidingWorld, dying: Victims, valkey: Node
) -> None:
    """A killed worker is not restarted before the next one takes its place, so that gaps pile up."""
    traffic = Traffic(0)
    feed(deciding, traffic)
    found = dying.points(**order_of(deciding))
    assert set(map(kind_of, found)) >= KINDS
    cases: list[Case] = [
        ("commit-log_partitions-segments#2", "after"),  # accepted, not decided
        ("sync-object#2", "after"),  # the decisions are stored, and not in the log
        (f"{DECIDED}#1", "before"),
        (f"{DECIDED}#2", "after"),  # decided, neither applied nor delivered
        ("commit#1", "before"),
        ("send#1", "before"),
        ("send#1", "after"),  # delivered, not confirmed
        ("commit-sink_positions#1", "after"),
    ]
    hit = kill_at(deciding, traffic, dying, cases)
    assert hit.total() >= len(cases) - 1, table_of(hit)
    assert check(deciding, traffic, valkey) > 0, "no delivery was repeated"


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(2))
def test_soak_100_workers_are_killed_before_and_after_every_durable_step_of_a_decision(
    deciding: DecidingWorld, dying: Victims, valkey: Node, seed: int, tell: Callable[[str], None]
) -> None:
    traffic, chance, began = Traffic(seed), random.Random(seed), time.monotonic()
    for _ in range(2):  # some steps are taken once in a project's life
        feed(deciding, traffic)
        found = dying.points(**order_of(deciding))
    kinds: dict[str, list[str]] = {}
    for point in found:
        kinds.setdefault(kind_of(point), []).append(point)
    cases = [(chance.choice(points), side) for points in kinds.values() for side in SIDES for _ in range(4)]
    cases += [(chance.choice(found), chance.choice(SIDES)) for _ in range(108 - len(cases))]
    chance.shuffle(cases)
    hit = kill_at(deciding, traffic, dying, cases)
    repeated, took = check(deciding, traffic, valkey), time.monotonic() - began
    tell(f"seed {seed}: {hit.total()} kills, {repeated} deliveries repeated, {took:.0f} s\n{table_of(hit)}")
    assert hit.total() >= 100, f"seed {seed}"
    assert min(hit[kind, side] for kind in KINDS for side in SIDES) >= 3, f"seed {seed}"


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("addresses", ["defaults"], indirect=True)
def test_soak_worker_store_and_sink_die_at_random(
    tmp_path: Path, dying: Victims, addresses: ProjectAddresses, seed: int, tell: Callable[[str], None]
) -> None:
    """One server has the states, another the stream of decisions; both are killed while a worker works, and dies."""
    traffic, chance, kills = Traffic(seed), random.Random(seed), Counter[str]()
    nodes = {name: Node(program("valkey"), tmp_path / name, DURABLE) for name in ("store", "sink")}
    with running(nodes["store"]) as store, running(nodes["sink"]) as sink, ThreadPoolExecutor(1) as pool:
        root = tmp_path / f"p{uuid.uuid4().hex[:6]}"
        deciding = deciding_world(root, store.url, addresses=addresses, broker_url=sink.url)
        deciding.publish()
        deciding.ensure()
        for _ in range(35):
            feed(deciding, traffic)
            point = f"{chance.choice(POINTS)}#{chance.randrange(1, 4)}"
            died = pool.submit(dying.killed, point, chance.choice(SIDES), **order_of(deciding))
            # In this thread: a server dies with the thread that started it.
            _kill_one(nodes, chance, kills)
            kills["worker"] += died.result()
        repeated = check(deciding, traffic, sink)
    tell(f"seed {seed}: {dict(kills)}, {repeated} deliveries repeated")
    assert kills.total() >= 60
    assert min(kills[name] for name in ("worker", "store", "sink")) >= 10


def _kill_one(nodes: dict[str, Node], chance: random.Random, kills: Counter[str]) -> None:
    time.sleep(chance.random())
    name = chance.choice(list(nodes))
    nodes[name].kill()
    kills[name] += 1
    time.sleep(chance.random() / 2)
    nodes[name].start()
