"""SEMANTICS 9.3: two workers share the partitions of a source; they, the broker, the store and a sink die.

The events are in a Kafka topic, whose consumer group divides its partitions, or in Redis streams, whose leases do.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import skewless.infra.reads.online.servers
import skewless_decisions.delivery
from plugins.decisions.tests.group_kills import LINGER_S, DecidingGroup, deciding_group
from tests.reliability.kills import SIDES, Case, Hits, Victims, kind_of, lanes, table_of
from tests.servers.kafka import KafkaBroker, named_broker

WORKERS = 2
SERVERS = ("broker", "store", "sink", "server")
SERVER_DEATHS = 5  # of each, while 100 workers die
_EVENTS = 15  # for each kill of a worker
_LEAVE_S = 40.0  # a worker that has not come by its step leaves the group; a broker takes ten seconds to start
_PAUSE_S = 4.0  # between two kills of servers
# Decisions, position and end of the log are one commit.
DECIDED = "commit-decided_positions-log_partitions-segments"
KINDS = (
    "commit-log_partitions-segments",
    DECIDED,
    "sync-object",
    "link-object",
    "append",
    "swap",
    "marker",
    "commit",
    "send-kafka",
    "send-redis",
    "send-parquet",
    "commit-sink_positions",
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the worker of this process, which finishes the work, be as quick as the others."""
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._LINGER_S", LINGER_S)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._RETRY_S", 0.02)
    monkeypatch.setattr("skewless.contract.windows.codec.ROLL_RECORDS", 6)
    monkeypatch.setattr(skewless.infra.reads.online.servers.slices, "__defaults__", (3, 0))
    monkeypatch.setattr(skewless_decisions.delivery, "_COUNT_S", 0.0)


@pytest.fixture(scope="module")
def dying_workers() -> Iterator[Sequence[Victims]]:
    with lanes("plugins.decisions.tests.group_kills", WORKERS) as running:
        yield running


@pytest.fixture
def group(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DecidingGroup]:
    """Yield a project with a champion and states, its servers, and no event."""
    kind, seed = getattr(request, "param", ("kafka", 0))
    if kind != "redis" and named_broker():
        pytest.skip("a broker that the tests did not start is not killed")
    with deciding_group(tmp_path, kind, seed) as started:
        yield started


@dataclass(kw_only=True)
class Killing:
    """Kills workers at chosen steps, and servers at any time, while events come."""

    group: DecidingGroup
    chance: random.Random
    hits: Hits = field(default_factory=Counter)
    servers: Counter[str] = field(default_factory=Counter)
    has_failed: bool = False

    def run(self, dying_workers: Sequence[Victims], cases: Sequence[Iterable[Case]], servers: Iterator[str]) -> None:
        """Work through the cases of each worker, and kill servers meanwhile."""
        with ThreadPoolExecutor(WORKERS + 1) as pool:
            workers = [pool.submit(self._kill_workers, *each) for each in zip(dying_workers, cases, strict=True)]
            kill_at = time.monotonic() + _PAUSE_S
            while not all(worker.done() for worker in workers):
                self.has_failed |= any(worker.done() and worker.exception() for worker in workers)
                has_enough = len(self.group.traffic.good) > _EVENTS * (self.hits.total() + 2)
                fed = None if has_enough else pool.submit(self.group.feed, _EVENTS // 3)
                time.sleep(self.chance.uniform(0.3, 1.0))
                if time.monotonic() >= kill_at and (name := next(servers, "")):
                    # In this thread: a server dies with the thread that started it.
                    self.kill_server(name)
                    kill_at = time.monotonic() + self.chance.uniform(0.5, 1.5) * _PAUSE_S
                if fed is not None:
                    fed.result()
        for worker in workers:
            worker.result()

    @property
    def least_deaths(self) -> int:
        """How often the server that died least did."""
        return min(self.servers[name] for name in SERVERS)

    @property
    def kinds(self) -> Sequence[str]:
        """The durable steps of the group's workers."""
        return [kind for kind in KINDS if kind != "send-kafka" or isinstance(self.group.broker, KafkaBroker)]

    def choose_cases(self, least: int, n: int, deadline: float) -> Iterator[Case]:
        """Yield cases until each step was hit often enough on each side, n workers died, and each server did."""
        while time.monotonic() < deadline and not self.has_failed:
            rare = [(kind, side) for kind in self.kinds for side in SIDES if self.hits[kind, side] < least]
            if not rare and self.hits.total() >= n and self.least_deaths >= SERVER_DEATHS:
                return
            kind, side = self.chance.choice(rare or [(kind, side) for kind in self.kinds for side in SIDES])
            yield f"{kind}#{self.chance.randrange(1, 4)}", side

    def choose_servers(self) -> Iterator[str]:
        """Yield servers for ever."""
        while True:
            yield self.chance.choice(SERVERS)

    def _kill_workers(self, dying: Victims, cases: Iterable[Case]) -> None:
        for point, side in cases:
            self.hits[kind_of(point), side] += dying.killed(point, side, **self.group.order(_LEAVE_S))

    def kill_server(self, name: str) -> None:
        """Kill a server, and start it again."""
        server = self.group.victim(name, self.chance)
        server.kill()
        self.servers[name] += 1
        time.sleep(self.chance.random() / 2)
        server.start()


@pytest.mark.soak
def test_9_3_two_workers_of_a_group_die_while_its_servers_do(
    group: DecidingGroup, dying_workers: Sequence[Victims]
) -> None:
    killing = Killing(group=group, chance=random.Random(0))
    pairs: list[tuple[Case, Case]] = [
        ((f"{DECIDED}#1", "after"), ("commit-log_partitions-segments#1", "after")),
        ((f"{DECIDED}#1", "before"), ("send-kafka#1", "after")),
    ]
    servers = iter(("store", "sink", "broker"))
    for pair in pairs:
        killing.run(dying_workers, [[case] for case in pair], servers)
        for name in ("broker", "server"):
            killing.kill_server(name)
    group.finish()
    group.check()
    assert killing.hits.total() >= 3, table_of(killing.hits)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("group", [("cluster", 0), ("kafka", 0), ("kafka", 1), ("redis", 0)], indirect=True, ids=str)
def test_soak_100_workers_and_all_servers_die(
    group: DecidingGroup, dying_workers: Sequence[Victims], tell: Callable[[str], None]
) -> None:
    killing, began = Killing(group=group, chance=random.Random(group.seed)), time.monotonic()
    killing.run(
        dying_workers, [killing.choose_cases(3, 100, began + 1_200) for _ in dying_workers], killing.choose_servers()
    )
    group.finish()
    repeated, took, moves = group.check(), time.monotonic() - began, group.moves()
    tell(
        f"seed {group.seed}: {killing.hits.total()} workers, {dict(killing.servers)} killed, {moves} partitions moved, "
        f"{repeated} deliveries repeated, {len(group.traffic.good)} events, {len(group.server.ids)} predictions "
        f"({group.server.failures} requests failed), {took:.0f} s\n{table_of(killing.hits)}"
    )
    assert killing.hits.total() >= 100
    assert min(killing.hits[kind, side] for kind in killing.kinds for side in SIDES) >= 3
    assert killing.least_deaths >= SERVER_DEATHS
    assert moves >= 100
