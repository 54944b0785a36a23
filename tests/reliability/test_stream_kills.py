"""SEMANTICS 4: a stream worker that is killed before or after any durable step loses nothing and doubles nothing."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import skewless.infra.reads.online.servers
from skewless.contract.windows.hops import SECOND
from skewless.infra.log.partition_log import PartitionLog
from tests.reliability.kills import SIDES, Case, Hits, Victims, kind_of, table_of, victims
from tests.reliability.stream_kills import open_stream, order_of, send
from tests.servers.node import Node
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.streams import StreamWorld, Traffic, drain

KINDS = {
    "append",
    "commit",
    "commit-generations",
    "commit-leases",
    "commit-log_partitions-segments",
    "commit-segments",
    "commit-segments-removed_objects",
    "commit-served_source",
    "delete",
    "marker",
    "retire",
    "swap",
    "unlink-staging",
}
STORED = {
    "defaults": {"link-object", "sync-folder", "sync-object"},
    "shared": {"upload-log", "link-cache", "sync-cache", "replace-cache"},
}
EVENTS = 20


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._LINGER_S", 0.0)
    monkeypatch.setattr("skewless.contract.windows.codec.ROLL_RECORDS", 6)
    monkeypatch.setattr(skewless.infra.reads.online.servers.slices, "__defaults__", (3, 0))


@pytest.fixture
def world(tmp_path: Path, valkey: Node, addresses: ProjectAddresses) -> StreamWorld:
    """A project with a stream and no states yet, on an emptied server."""
    valkey.ask("FLUSHALL")
    return StreamWorld(root=tmp_path / f"p{uuid.uuid4().hex[:6]}", url=valkey.url, addresses=addresses)


@pytest.fixture(scope="module")
def dying(addresses: ProjectAddresses) -> Iterator[Victims]:  # noqa: ARG001 - sets the credentials of new processes
    with victims("tests.reliability.stream_kills") as running:
        yield running


def kill_at(world: StreamWorld, traffic: Traffic, dying: Victims, cases: Sequence[Case]) -> Hits:
    """Kill one worker per case and let the next make it good; return which kinds of steps were hit, and how often."""
    hit = Hits()
    for point, side in cases:
        world.clock.set(world.clock.now_us() + 61 * SECOND)
        send(world.root, traffic.make(EVENTS, world.clock.now_us()))
        hit[kind_of(point), side] += dying.killed(point, side, **order_of(world))
        known = known_at(world)
        world.ensure()
        with world.store() as store:
            worker = world.worker(store, open_stream(world.root))
            drain(worker)
            worker.close()
        world.check()
        after = known_at(world)
        # The known time of a position is recorded once, by any process.
        assert {at: after[at] for at in known} == known, f"after a kill {side} {point}"
        assert None not in after.values(), f"after a kill {side} {point}"
    traffic.check(world)
    return hit


def known_at(world: StreamWorld) -> dict[tuple[str, int], int]:
    """Return when the applying of each position ended, where that was recorded."""
    return {
        (name, seq): known
        for name in world.logged()
        for rows in PartitionLog(world.state, name).read(columns=["__seq", "__known_at"])
        for seq, known in zip(rows["__seq"].to_pylist(), rows["__known_at"].to_pylist(), strict=True)
        if known is not None
    }


def begin(world: StreamWorld, traffic: Traffic, dying: Victims) -> list[str]:
    """Return the points of a whole run on a project that exists."""
    for _ in range(2):
        world.ensure()
        world.clock.set(world.clock.now_us() + 61 * SECOND)
        send(world.root, traffic.make(EVENTS, world.clock.now_us()))
        found = dying.points(**order_of(world))
    assert set(map(kind_of, found)) >= KINDS | STORED["shared" if world.addresses.is_shared else "defaults"]
    return found


def some_of_each(found: Sequence[str], times: int, chance: random.Random) -> list[Case]:
    """Return for each kind of step, before and after, some points where it happens."""
    kinds: dict[str, list[str]] = {}
    for point in found:
        kinds.setdefault(kind_of(point), []).append(point)
    cases = [(chance.choice(points), side) for points in kinds.values() for side in SIDES for _ in range(times)]
    chance.shuffle(cases)
    return cases


def test_4_2_workers_are_killed_around_the_log_the_states_and_the_markers(world: StreamWorld, dying: Victims) -> None:
    traffic = Traffic(0)
    stored = "upload-log" if world.addresses.is_shared else "sync-object"
    cases: list[Case] = [
        (f"{stored}#1", "before"),
        (f"{stored}#2", "after"),
        ("commit-log_partitions-segments#2", "before"),
        ("commit-log_partitions-segments#2", "after"),
        ("append#2", "before"),
        ("swap#1", "before"),
        ("marker#4", "before"),
        ("commit-segments#2", "before"),
        ("commit#1", "before"),
        ("commit-segments-removed_objects#1", "after"),
        ("commit-generations#2", "before"),
        ("commit-generations#2", "after"),
    ]
    begin(world, traffic, dying)
    assert kill_at(world, traffic, dying, cases).total() >= len(cases) - 2


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(3))
def test_soak_200_workers_are_killed_before_and_after_every_durable_step(
    world: StreamWorld, dying: Victims, seed: int, tell: Callable[[str], None]
) -> None:
    traffic, chance, began = Traffic(seed), random.Random(seed), time.monotonic()
    found = begin(world, traffic, dying)
    cases = some_of_each(found, 5, chance)
    cases += [(chance.choice(found), chance.choice(SIDES)) for _ in range(215 - len(cases))]
    hit = kill_at(world, traffic, dying, cases)
    took = time.monotonic() - began
    tell(f"seed {seed}: {hit.total()} kills in {len(cases)} runs, {len(found)} points, {took:.0f} s\n{table_of(hit)}")
    assert hit.total() >= 200, f"seed {seed}"
    assert min(hit[kind_of(point), side] for point, side in cases) >= 3, f"seed {seed}"
