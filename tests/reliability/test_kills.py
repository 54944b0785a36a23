"""SEMANTICS 1.4, 2.3: a run that is killed before or after any durable step is made good by the next one."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skewless.contract.clock import ManualClock
from skewless.infra.log.log_columns import SEQ
from tests.reliability.kills import SIDES, Case, Hits, Victims, kind_of, lanes, table_of, victims
from tests.reliability.losses import FIRST, VIEW, agrees, write_rounds
from tests.reliability.materialize_kills import order_of
from tests.servers.node import Node
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.latest import LatestRedisWorld

KEYS = 20
KINDS = {
    "commit-leases",
    "commit-materializations",
    "commit-log_partitions-segments",
    "commit-materializations-coverage",
    "write-draft",
    "unlink-staging",
    "commit-daily_counts",
    "commit-read_progress",
    "put",
    "set_markers",
}
STORED = {
    "defaults": ("link-object", {"link-object", "sync-folder", "sync-object"}),
    "shared": ("upload-log", {"upload-log", "link-cache", "sync-cache", "replace-cache"}),
}


@pytest.fixture
def latest(tmp_path: Path, valkey: Node, addresses: ProjectAddresses) -> LatestRedisWorld:
    valkey.ask("FLUSHALL")
    root = tmp_path / f"p{uuid.uuid4().hex[:6]}"
    return LatestRedisWorld(root=root, url=valkey.url, clock=ManualClock(FIRST), addresses=addresses)


@pytest.fixture(scope="module")
def dying(addresses: ProjectAddresses) -> Iterator[Victims]:  # noqa: ARG001 - sets the credentials of new processes
    with victims("tests.reliability.materialize_kills") as running:
        yield running


def kill_at(latest: LatestRedisWorld, dying: Victims, cases: Sequence[Case]) -> Hits:
    """Kill one run per case and let the next make it good; return which kinds of steps were hit, and how often."""
    hit = Hits()
    for number, (point, side) in enumerate(cases, start=2):
        write_rounds(latest, number, KEYS)
        latest.clock.set(FIRST + 2 * number)
        hit[kind_of(point), side] += dying.killed(point, side, **order_of(latest))
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


def begin(latest: LatestRedisWorld, dying: Victims) -> list[str]:
    """Return the points of a run that brings one round to a project that exists."""
    write_rounds(latest, 1, KEYS)
    latest.run(VIEW)
    root = latest.root.with_name(f"{latest.root.name}-probe")
    probe = LatestRedisWorld(root=root, url=latest.url, clock=ManualClock(FIRST), addresses=latest.addresses)
    write_rounds(probe, 1, KEYS)
    probe.project_state.database.upgrade()
    return dying.points(**order_of(probe))


def test_1_4_runs_are_killed_around_the_log_the_rows_and_the_marker(latest: LatestRedisWorld, dying: Victims) -> None:
    found = begin(latest, dying)
    step, stored = STORED["shared" if latest.addresses.is_shared else "defaults"]
    assert set(map(kind_of, found)) == KINDS | stored
    cases: list[Case] = [
        (f"{step}#1", "before"),
        (f"{step}#1", "after"),
        ("commit-log_partitions-segments#1", "before"),
        ("commit-log_partitions-segments#1", "after"),
        ("put#2", "before"),
        ("set_markers#1", "after"),
        ("commit-materializations#1", "after"),
        ("commit-materializations-coverage#1", "before"),
        ("commit-daily_counts#1", "after"),
    ]
    cases = cases[::3] if latest.addresses.is_shared else cases  # all of them: see below
    assert kill_at(latest, dying, cases).total() == len(cases)


def test_1_4_four_runs_at_once_accept_each_row_once(latest: LatestRedisWorld) -> None:
    write_rounds(latest, 1, KEYS)
    latest.run(VIEW)
    write_rounds(latest, 4, KEYS)
    orders = [order_of(latest) | {"now_us": FIRST + number} for number in range(2, 6)]

    def run(one: Victims, order: dict[str, object]) -> list[str]:
        return one.points(**order)

    with lanes("tests.reliability.materialize_kills", 4) as dying, ThreadPoolExecutor(4) as pool:
        passed = list(pool.map(run, dying, orders))
    # One of them found the new rows, the others nothing to do.
    step, _ = STORED["shared" if latest.addresses.is_shared else "defaults"]
    assert [sum(kind_of(point) == step for point in each) for each in passed].count(1) == 1
    latest.clock.set(FIRST + 10)
    (report,) = latest.run(VIEW)
    assert (report.accepted, report.written) == (0, 0)
    assert agrees(latest, KEYS)
    assert latest.log(VIEW)[SEQ].to_pylist() == list(range(4 * KEYS))


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(3))
def test_soak_every_durable_step_is_killed_before_and_after(
    latest: LatestRedisWorld, dying: Victims, seed: int, tell: Callable[[str], None]
) -> None:
    points = begin(latest, dying)
    cases = [(point, side) for point in points for side in SIDES] * 3
    random.Random(seed).shuffle(cases)
    hit = kill_at(latest, dying, cases)
    tell(f"seed {seed}: {hit.total()} kills in {len(cases)} runs, {len(points)} points\n{table_of(hit)}")
    assert min(hit[kind_of(point), side] for point, side in cases) >= 3, f"seed {seed}"
