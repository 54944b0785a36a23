"""SEMANTICS 1.4, 2.3: a run that is killed before or after any durable step is made good by the next one."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skewless.contract.clock import ManualClock
from skewless.infra.log.log_columns import SEQ
from skewless.infra.storage.project_state import ProjectState
from tests.reliability.kills import Side, killed, points
from tests.reliability.losses import FIRST, VIEW, agrees, write_rounds
from tests.servers.node import Node
from tests.worlds.latest import LatestRedisWorld

KEYS = 20
SIDES: tuple[Side, ...] = ("before", "after")


@pytest.fixture
def latest(tmp_path: Path, valkey: Node) -> LatestRedisWorld:
    valkey.ask("FLUSHALL")
    return LatestRedisWorld(root=tmp_path / "p", url=valkey.url, clock=ManualClock(FIRST))


def kill_at(latest: LatestRedisWorld, cases: Sequence[tuple[str, Side]]) -> Counter[tuple[str, Side]]:
    """Kill one run per case and let the next make it good; return which kinds of steps were hit, and how often."""
    hit: Counter[tuple[str, Side]] = Counter()
    for number, (point, side) in enumerate(cases, start=2):
        write_rounds(latest, number, KEYS)
        latest.clock.set(FIRST + 2 * number)
        if killed(latest.root, latest.url, latest.clock.now_us(), point, side):
            hit[point.partition("#")[0], side] += 1
        latest.clock.set(FIRST + 2 * number + 1)
        latest.run(VIEW)
        assert agrees(latest, KEYS), f"after a kill {side} {point}"
        assert set(latest.online(VIEW, [0], [KEYS - 1]).values["note"]) == {str(number - 1)}
    log = latest.log(VIEW)
    # Each row was accepted once, whatever died in between, and every one by a run that ended.
    assert log[SEQ].to_pylist() == list(range(KEYS * (len(cases) + 1)))
    assert len(set(zip(log["id"].to_pylist(), log["note"].to_pylist(), strict=True))) == log.num_rows
    assert latest.known(VIEW)[-1].last == log.num_rows - 1
    return hit


def begin(latest: LatestRedisWorld) -> list[str]:
    """Return the points of a run that brings one round to a project that exists."""
    write_rounds(latest, 1, KEYS)
    latest.run(VIEW)
    probe = LatestRedisWorld(root=latest.root.with_name("probe"), url=latest.url, clock=ManualClock(FIRST))
    write_rounds(probe, 1, KEYS)
    ProjectState(probe.state).database.upgrade()
    return points(probe.root, probe.url, FIRST)


def test_1_4_runs_are_killed_around_the_log_the_rows_and_the_marker(latest: LatestRedisWorld) -> None:
    found = begin(latest)
    assert {point.partition("#")[0] for point in found} == {
        "commit-leases",
        "commit-materializations",
        "commit-log_partitions-segments",
        "commit-materializations-coverage",
        "write-draft",
        "link-object",
        "sync-folder",
        "sync-object",
        "commit-read_progress",
        "put",
        "set_markers",
    }
    cases: list[tuple[str, Side]] = [
        ("link-object#1", "before"),
        ("commit-log_partitions-segments#1", "before"),
        ("commit-log_partitions-segments#1", "after"),
        ("put#2", "before"),
        ("set_markers#1", "after"),
        ("commit-materializations#1", "after"),
        ("commit-materializations-coverage#1", "before"),
    ]
    assert sum(kill_at(latest, cases).values()) == len(cases)


def test_1_4_four_runs_at_once_accept_each_row_once(latest: LatestRedisWorld) -> None:
    write_rounds(latest, 1, KEYS)
    latest.run(VIEW)
    write_rounds(latest, 4, KEYS)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(points, latest.root, latest.url, FIRST + number) for number in range(2, 6)]
        passed = [run.result() for run in runs]
    # One of them found the new rows, the others nothing to do.
    assert [sum(point.startswith("link-object") for point in each) for each in passed].count(1) == 1
    latest.clock.set(FIRST + 10)
    (report,) = latest.run(VIEW)
    assert (report.accepted, report.written) == (0, 0)
    assert agrees(latest, KEYS)
    assert latest.log(VIEW)[SEQ].to_pylist() == list(range(4 * KEYS))


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(3))
def test_soak_every_durable_step_is_killed_before_and_after(
    latest: LatestRedisWorld, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [(point, side) for point in begin(latest) for side in SIDES] * 3
    random.Random(seed).shuffle(cases)
    hit = kill_at(latest, cases)
    with capsys.disabled():
        sys.stdout.write(f"\nseed {seed}: {sum(hit.values())} kills in {len(cases)} runs\n")
        sys.stdout.writelines(f"  {name:24} {side:7} {times:3}\n" for (name, side), times in sorted(hit.items()))
    assert min(hit[point.partition("#")[0], side] for point, side in cases) >= 3, f"seed {seed}"
