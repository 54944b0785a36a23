"""SEMANTICS 4.5: a server that lost acknowledged writes holds what the log says after the next run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from skewless.contract.clock import ManualClock
from skewless.contract.errors import StoreError
from skewless.contract.keys import marker_key
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.markers import marker_keys
from skewless.infra.reads.online.port import Marker
from skewless.infra.reads.online.redis_store import RedisWriter
from tests.contract.store import RowStore
from tests.reliability.losses import (
    FIRST,
    VIEW,
    agrees,
    journal,
    lose,
    materialize,
    reader_marker,
    write_rounds,
)
from tests.servers.cluster import Cluster
from tests.servers.node import Node
from tests.worlds.latest import LatestRedisWorld
from tests.worlds.plans import make_plan
from tests.worlds.waiting import until

KEYS = 60


def make_world(tmp_path: Path, url: str) -> LatestRedisWorld:
    return LatestRedisWorld(root=tmp_path / "p", url=url, clock=ManualClock(FIRST))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 30))])
def test_4_5_any_end_of_the_writes_may_be_lost(tmp_path: Path, node: Node, seed: int) -> None:
    world = make_world(tmp_path, node.url)
    materialize(world, 1, KEYS)
    before = journal(node).stat().st_size
    materialize(world, 2, KEYS)
    keep = random.Random(seed).randrange(before, journal(node).stat().st_size)
    lose(node, keep)
    assert not agrees(world, KEYS), f"seed {seed}: nothing was lost at {keep}"
    # The remaining data shows it: the marker is from the first run.
    assert asyncio.run(reader_marker(world)) == KEYS - 1
    world.clock.set(FIRST + 100)
    world.run(VIEW)
    assert agrees(world, KEYS), f"seed {seed}, cut at {keep}"
    assert asyncio.run(reader_marker(world)) == 2 * KEYS - 1


def test_4_5_what_was_lost_before_the_first_marker_is_applied_again(tmp_path: Path, node: Node) -> None:
    world = make_world(tmp_path, node.url)
    materialize(world, 1, KEYS)
    lose(node, journal(node).stat().st_size - 10)
    assert asyncio.run(reader_marker(world)) is None
    world.clock.set(FIRST + 100)
    world.run(VIEW)
    assert agrees(world, KEYS)


@pytest.mark.parametrize("lossy", [0, pytest.param(1, marks=pytest.mark.soak), pytest.param(2, marks=pytest.mark.soak)])
def test_4_5_one_server_of_a_cluster_may_lose_its_writes(tmp_path: Path, nodes: Cluster, lossy: int) -> None:
    """The marker of the server that lost writes is older; the markers of the others do not hide it."""
    world = make_world(tmp_path, nodes.url)
    materialize(world, 1, KEYS)
    before = journal(nodes.nodes[lossy]).stat().st_size
    materialize(world, 2, KEYS)
    lose(nodes.nodes[lossy], before)
    until(nodes.whole)
    assert not agrees(world, KEYS)
    assert asyncio.run(reader_marker(world)) == KEYS - 1
    world.clock.set(FIRST + 100)
    world.run(VIEW)
    assert agrees(world, KEYS)
    assert asyncio.run(reader_marker(world)) == 2 * KEYS - 1


def test_4_5_rows_whose_slots_moved_are_applied_again(tmp_path: Path, nodes: Cluster) -> None:
    """A server whose marker is older than the rows that it took over vouches for nothing."""
    world = make_world(tmp_path, nodes.url)
    materialize(world, 1, KEYS)
    writer = RedisWriter(world.url)
    assert writer.marker(marker_key(world.project, VIEW)) == KEYS - 1
    slot = next(nodes.slot(key) for key in marker_keys("m", spread=True) if nodes.owner(key) is nodes.nodes[0])
    nodes.move(slot, nodes.nodes[0], nodes.nodes[1])
    assert writer.marker(marker_key(world.project, VIEW)) is None
    writer.close()
    world.clock.set(FIRST + 100)
    (report,) = world.run(VIEW)
    assert report.applied == KEYS
    assert report.written == 0
    assert asyncio.run(reader_marker(world)) == KEYS - 1
    nodes.move(slot, nodes.nodes[1], nodes.nodes[0])


@pytest.mark.parametrize("kind", ["node", "nodes"])
def test_4_5_what_is_left_of_a_view_is_unavailable_until_it_is_whole_again(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """The guard that the server asks, in a process that saw the second run and in one that starts after the loss."""
    servers: Node | Cluster = request.getfixturevalue(kind)
    lossy = servers if isinstance(servers, Node) else servers.nodes[2]
    world = make_world(tmp_path, servers.url)
    name, store = marker_key(world.project, VIEW), RowStore.at(world.url)
    materialize(world, 1, KEYS)
    before = journal(lossy).stat().st_size
    materialize(world, 2, KEYS)
    plan = make_plan(["counted.x"], views=[VIEW])
    marker_history = MarkerHistory()
    assert marker_history.find_lost([name], store.marked([], [name])[1]) == set()
    lose(lossy, before)
    until(lambda: isinstance(servers, Node) or servers.whole())
    (standing,) = store.marked([], [name])[1]
    assert standing == Marker(KEYS - 1, FIRST + 1)
    for each in (
        marker_history,
        MarkerHistory.from_runs(ProjectState(world.state), [replace(plan, project=world.project)]),
    ):
        assert each.find_lost([name], [standing]) == {name}
    world.clock.set(FIRST + 100)
    world.run(VIEW)
    assert marker_history.find_lost([name], store.marked([], [name])[1]) == set()


class Interrupted(RedisWriter):
    """Loses the server after a number of puts."""

    def __init__(self, url: str, node: Node, keep: int) -> None:
        super().__init__(url)
        self._node = node
        self._keep = keep

    def set_markers(self, marks: Mapping[str, Marker], expected: Mapping[str, int | None] | None = None) -> None:
        lose(self._node, self._keep)
        super().set_markers(marks, expected)


def test_4_5_a_run_does_not_vouch_for_a_server_that_was_restarted_meanwhile(tmp_path: Path, node: Node) -> None:
    world = make_world(tmp_path, node.url)
    materialize(world, 1, KEYS)
    keep = journal(node).stat().st_size
    write_rounds(world, 2, KEYS)
    world.clock.set(FIRST + 2)
    writer = Interrupted(world.url, node, keep)
    with world.connect() as connection, pytest.raises(StoreError, match="was restarted, emptied or failed over during"):
        world.job(connection, writer).run([VIEW])
    writer.close()
    assert asyncio.run(reader_marker(world)) == KEYS - 1
    assert set(world.online(VIEW, [0], [KEYS - 1]).values["note"]) == {"0"}
    world.clock.set(FIRST + 3)
    world.run(VIEW)
    assert agrees(world, KEYS)
