"""SEMANTICS 4: a stream worker that is killed before or after any durable step loses nothing and doubles nothing."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Sequence

import pytest

import skewless.infra.online.servers
from skewless.contract.windows.hops import SECOND
from skewless.infra.log.partition_log import PartitionLog
from tests.reliability.kills import Side
from tests.reliability.stream_kills import WorkerVictims, open_stream, send, victims
from tests.worlds.streams import StreamWorld, Traffic, drain

SIDES: tuple[Side, ...] = ("before", "after")
KINDS = {
    "append",
    "commit",
    "commit-generations",
    "commit-leases",
    "commit-log_partitions-segments",
    "commit-segments",
    "commit-segments-removed_objects",
    "commit-served_source",
    "link-merged",
    "marker",
    "retire",
    "swap",
    "sync-folder",
    "sync-object",
    "unlink-draft",
}
EVENTS = 20
Hits = Counter[tuple[str, Side]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.streams.worker._LINGER_S", 0.0)
    monkeypatch.setattr("skewless.contract.windows.codec._ROLL_RECORDS", 6)
    monkeypatch.setattr(skewless.infra.online.servers.slices, "__defaults__", (3, 0))


def kill_at(world: StreamWorld, traffic: Traffic, dying: WorkerVictims, cases: Sequence[tuple[str, Side]]) -> Hits:
    """Kill one worker per case and let the next make it good; return which kinds of steps were hit, and how often."""
    hit: Hits = Counter()
    for point, side in cases:
        world.clock.set(world.clock.now_us() + 61 * SECOND)
        send(world.root, traffic.make(EVENTS, world.clock.now_us()))
        if dying.killed(world.root, world.url, world.clock.now_us(), point, side):
            hit[point.partition("#")[0], side] += 1
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


def begin(world: StreamWorld, traffic: Traffic, dying: WorkerVictims) -> list[str]:
    """Return the points of a whole run on a project that exists."""
    for _ in range(2):
        world.ensure()
        world.clock.set(world.clock.now_us() + 61 * SECOND)
        send(world.root, traffic.make(EVENTS, world.clock.now_us()))
        found = dying.points(world.root, world.url, world.clock.now_us())
    assert {point.partition("#")[0] for point in found} >= KINDS
    return found


def some_of_each(found: Sequence[str], times: int, chance: random.Random) -> list[tuple[str, Side]]:
    """Return for each kind of step, before and after, some points where it happens."""
    kinds: dict[str, list[str]] = {}
    for point in found:
        kinds.setdefault(point.partition("#")[0], []).append(point)
    cases = [(chance.choice(points), side) for points in kinds.values() for side in SIDES for _ in range(times)]
    chance.shuffle(cases)
    return cases


def test_4_2_workers_are_killed_around_the_log_the_states_and_the_markers(world: StreamWorld) -> None:
    traffic = Traffic(0)
    cases: list[tuple[str, Side]] = [
        ("sync-object#1", "before"),
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
    with victims() as dying:
        begin(world, traffic, dying)
        hit = kill_at(world, traffic, dying, cases)
    assert sum(hit.values()) >= len(cases) - 2


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(3))
def test_soak_200_workers_are_killed_before_and_after_every_durable_step(
    world: StreamWorld, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    traffic, chance, began = Traffic(seed), random.Random(seed), time.monotonic()
    with victims() as dying:
        found = begin(world, traffic, dying)
        cases = some_of_each(found, 5, chance)
        cases += [(chance.choice(found), chance.choice(SIDES)) for _ in range(215 - len(cases))]
        hit = kill_at(world, traffic, dying, cases)
    took = time.monotonic() - began
    with capsys.disabled():
        sys.stdout.write(f"\nseed {seed}: {sum(hit.values())} kills in {len(cases)} runs, {took:.0f} s\n")
        sys.stdout.writelines(f"  {name:24} {side:7} {times:3}\n" for (name, side), times in sorted(hit.items()))
    assert sum(hit.values()) >= 200, f"seed {seed}"
    assert min(hit[point.partition("#")[0], side] for point, side in cases) >= 3, f"seed {seed}"
