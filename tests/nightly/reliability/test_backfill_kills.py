"""SEMANTICS 4.5: a backfill of a view of latest values that is killed leaves no row of another log to be read.

Until the next run, of either kind, has done the rest, the view is unavailable.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nightly.reliability.backfill_kills import RewrittenStore
from tests.reliability.kills import SIDES, Case, Hits, Victims, kind_of, table_of, victims
from tests.servers.cluster import Cluster
from tests.servers.node import Node
from tests.worlds.addresses import ProjectAddresses

KINDS = {"delete", "put", "set_markers"}
SERVERS = ["valkey", "nodes"]


@pytest.fixture
def rewritten(tmp_path: Path, request: pytest.FixtureRequest, addresses: ProjectAddresses) -> RewrittenStore:
    server: Node | Cluster = request.getfixturevalue(request.param)
    if isinstance(server, Node):
        server.ask("FLUSHALL")
    return RewrittenStore.make(tmp_path, server.url, addresses)


@pytest.fixture(scope="module")
def dying_backfill(addresses: ProjectAddresses) -> Iterator[Victims]:  # noqa: ARG001 - sets the credentials of new processes
    with victims("tests.nightly.reliability.backfill_kills") as running:
        yield running


def find_points(rewritten: RewrittenStore, dying: Victims) -> list[str]:
    """Return the points of a whole backfill, which leaves what the own log says."""
    rewritten.spoil(has_own_marker=False)
    points = dying.points(repo=str(rewritten.repo))
    assert set(map(kind_of, points)) >= KINDS
    return points


@pytest.mark.parametrize("rewritten", ["valkey", pytest.param("nodes", marks=pytest.mark.soak)], indirect=True)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 20))])
def test_4_5_a_killed_backfill_leaves_nothing_of_another_log(
    rewritten: RewrittenStore, dying_backfill: Victims, seed: int
) -> None:
    points, chance = find_points(rewritten, dying_backfill), random.Random(seed)
    # Some rows of the other log are left: they must not be taken for those of the own log.
    cases: list[Case] = [("delete#2", "after"), ("put#1", "before"), *rewritten.draw(points, chance, 4)]
    hits = [rewritten.kill(dying_backfill, case, chance) for case in cases]
    # SCAN does not always return as many keys, so that a later step may not come.
    assert hits[:2] == [True, True], f"seed {seed}: {cases}"


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("rewritten", SERVERS, indirect=True)
def test_soak_4_5_every_step_of_a_backfill_is_killed_before_and_after(
    rewritten: RewrittenStore, dying_backfill: Victims, tell: Callable[[str], None]
) -> None:
    points, chance, hits = find_points(rewritten, dying_backfill), random.Random(7), Hits()
    for point in points:
        for side in SIDES:
            hits[kind_of(point), side] += rewritten.kill(dying_backfill, (point, side), chance)
    tell(f"{hits.total()} kills, {len(points)} points\n{table_of(hits)}")
    assert hits.total() >= 2 * len(points) * 0.9
