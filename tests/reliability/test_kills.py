"""SEMANTICS 1.4, 2.3: a run that is killed before or after any durable step is made good by the next one."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skewless.contract.clock import ManualClock
from skewless.infra.log.accepted import SEQ
from tests.reliability.kills import Side, killed, points
from tests.reliability.losses import FIRST, VIEW, agrees, write_rounds
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.latest import World

KEYS = 20
SIDES: tuple[Side, ...] = ("before", "after")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running(Node(program("valkey"), tmp_path / "node")) as node:
        yield World(root=tmp_path / "p", url=node.url, clock=ManualClock(FIRST))


def kill_at(world: World, cases: Sequence[tuple[str, Side]]) -> Counter[tuple[str, Side]]:
    """Kill one run per case and let the next make it good; return which kinds of steps were hit, and how often."""
    hit: Counter[tuple[str, Side]] = Counter()
    for number, (point, side) in enumerate(cases, start=2):
        write_rounds(world, number, KEYS)
        world.clock.set(FIRST + 2 * number)
        if killed(world.root, world.url, world.clock.now_us(), point, side):
            hit[point.partition("#")[0], side] += 1
        world.clock.set(FIRST + 2 * number + 1)
        world.run(VIEW)
        assert agrees(world, KEYS), f"after a kill {side} {point}"
        assert set(world.online(VIEW, [0], [KEYS - 1]).values["note"]) == {str(number - 1)}
    log = world.log(VIEW)
    # Each row was accepted once, whatever died in between, and every one by a run that ended.
    assert log[SEQ].to_pylist() == list(range(KEYS * (len(cases) + 1)))
    assert len(set(zip(log["id"].to_pylist(), log["note"].to_pylist(), strict=True))) == log.num_rows
    assert world.known(VIEW)[-1].last == log.num_rows - 1
    return hit


def begin(world: World) -> list[str]:
    """Return the points of a run that brings one round to a project that exists."""
    write_rounds(world, 1, KEYS)
    world.run(VIEW)
    probe = World(root=world.root.with_name("probe"), url=world.url, clock=ManualClock(FIRST))
    write_rounds(probe, 1, KEYS)
    return points(probe.root, probe.url, FIRST)


def test_1_4_runs_are_killed_around_the_log_the_rows_and_the_marker(world: World) -> None:
    found = begin(world)
    assert {point.partition("#")[0] for point in found} == {
        "link-.start.json",
        "sync-draft-of-runs",
        "sync-folder-of-runs",
        "write-draft",
        "sync-draft-of-log",
        "link-.parquet",
        "sync-folder-of-log",
        "note-file",
        "replace-progress",
        "put",
        "set_marker",
        "link-.end.json",
    }
    cases: list[tuple[str, Side]] = [
        ("link-.parquet#1", "before"),
        ("put#2", "before"),
        ("set_marker#1", "after"),
    ]
    assert sum(kill_at(world, cases).values()) == len(cases)


def test_1_4_four_runs_at_once_accept_each_row_once(world: World) -> None:
    write_rounds(world, 1, KEYS)
    world.run(VIEW)
    write_rounds(world, 4, KEYS)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(points, world.root, world.url, FIRST + number) for number in range(2, 6)]
        passed = [run.result() for run in runs]
    # One of them found the new rows, the others nothing to do.
    assert [sum(point.startswith("link-.parquet") for point in each) for each in passed].count(1) == 1
    world.clock.set(FIRST + 10)
    (report,) = world.run(VIEW)
    assert (report.accepted, report.written) == (0, 0)
    assert agrees(world, KEYS)
    assert world.log(VIEW)[SEQ].to_pylist() == list(range(4 * KEYS))


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(3))
def test_soak_every_durable_step_is_killed_before_and_after(
    world: World, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [(point, side) for point in begin(world) for side in SIDES] * 3
    random.Random(seed).shuffle(cases)
    hit = kill_at(world, cases)
    with capsys.disabled():
        sys.stdout.write(f"\nseed {seed}: {sum(hit.values())} kills in {len(cases)} runs\n")
        sys.stdout.writelines(f"  {name:24} {side:7} {times:3}\n" for (name, side), times in sorted(hit.items()))
    assert min(hit[point.partition("#")[0], side] for point, side in cases) >= 3, f"seed {seed}"
