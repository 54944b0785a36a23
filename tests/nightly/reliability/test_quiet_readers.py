"""SEMANTICS 4.5: a reader that had not read since what was lost was written notices the loss when it connects anew."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TypeVar

import pytest

from skewless.contract.clock import ManualClock, OffsetClock
from skewless.contract.errors import StoreError
from skewless.contract.keys import marker_key
from skewless.contract.plan import FeaturePlan
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.marker_history import LogPositions, MarkerHistory
from skewless.infra.reads.online.port import RowsAndMarkers
from skewless.infra.reads.online.redis_store import BlockingReader, RedisReader
from skewless.infra.reads.online.window_states import WindowStates
from tests.nightly.reliability.test_stream_losses import Line, line
from tests.nightly.worlds.served import STRICT, ServedProject, make_served, served
from tests.nightly.worlds.served import opened as world_of
from tests.reliability.losses import FIRST, VIEW, journal, lose, materialize
from tests.servers.cluster import Cluster
from tests.servers.node import Node
from tests.servers.programs import program
from tests.servers.sentinels import sentinel_set
from tests.worlds.latest import HOUR, LatestRedisWorld
from tests.worlds.payments_data import write_sample
from tests.worlds.plans import make_plan
from tests.worlds.streams import read_online
from tests.worlds.trained import NOW
from tests.worlds.waiting import PATIENCE_S, eventually, until

T = TypeVar("T")
KEYS = 60


class Blocking:
    """As a notebook or Feast's online store reads."""

    def __init__(self, url: str, state: Path, plan: FeaturePlan) -> None:
        self.reader = BlockingReader(url)
        self.marker_history = MarkerHistory.from_runs(ProjectState(state), [plan], self.reader.on_connect)

    def read(self, names: list[str]) -> RowsAndMarkers:
        return answered(lambda: self.reader.get_with_markers([b"any"], names))

    def close(self) -> None:
        self.reader.close()


class Asynchronous:
    """As the server reads."""

    def __init__(self, url: str, state: Path, plan: FeaturePlan) -> None:
        self.marker_history = MarkerHistory.from_runs(ProjectState(state), [plan])
        self._runner = asyncio.Runner()
        self._reader = self._runner.run(self._open(url))

    def read(self, names: list[str]) -> RowsAndMarkers:
        return answered(lambda: self._runner.run(self._reader.get_with_markers([b"any"], names)))

    def check(self) -> set[str]:
        """Look after the store, as the server does every second."""
        return answered(lambda: self._runner.run(self.marker_history.check(self._reader)))

    def close(self) -> None:
        self._runner.run(self._reader.close())
        self._runner.close()

    async def _open(self, url: str) -> RedisReader:
        return RedisReader(url, on_connect=self.marker_history.refresh_async)


Reader = Blocking | Asynchronous


def answered(read: Callable[[], T]) -> T:
    """Read until the store answers: the first attempt may go over the connection that broke."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return read()
        except StoreError:
            assert time.monotonic() < end
            time.sleep(0.02)


@contextmanager
def opened(kind: type[Reader], url: str, state: Path, plan: FeaturePlan) -> Iterator[Reader]:
    reader = kind(url, state, plan)
    try:
        yield reader
    finally:
        reader.close()


def make_world(tmp_path: Path, url: str) -> tuple[LatestRedisWorld, FeaturePlan, str]:
    world = LatestRedisWorld(root=tmp_path / "p", url=url, clock=ManualClock(FIRST))
    plan = replace(make_plan(["counted.x"], views=[VIEW]), project=world.project)
    return world, plan, marker_key(world.project, VIEW)


# Each place, kind and history once; the rest with `make soak`.
OFTEN = {("node", Blocking, False, 0), ("nodes", Asynchronous, True, 0)}
LOSSES = [
    pytest.param(*loss, marks=() if loss in OFTEN else pytest.mark.soak)
    for loss in product(("node", "nodes"), (Asynchronous, Blocking), (False, True), range(20))
]


@pytest.mark.parametrize(("place", "kind", "has_read", "seed"), LOSSES)
def test_4_5_rows_that_were_lost_before_they_were_read(
    tmp_path: Path, request: pytest.FixtureRequest, place: str, kind: type[Reader], seed: int, *, has_read: bool
) -> None:
    servers: Node | Cluster = request.getfixturevalue(place)
    luck = random.Random(seed)
    lossy = servers if isinstance(servers, Node) else luck.choice(servers.nodes)
    world, plan, name = make_world(tmp_path, servers.url)
    materialize(world, 1, KEYS)
    with opened(kind, world.url, world.state, plan) as reader:
        if has_read:
            assert reader.marker_history.find_lost([name], reader.read([name])[1]) == set()
        before = journal(lossy).stat().st_size
        materialize(world, 2, KEYS)
        lose(lossy, luck.randrange(before, journal(lossy).stat().st_size))
        until(lambda: isinstance(servers, Node) or servers.whole())
        assert reader.marker_history.find_lost([name], reader.read([name])[1]) == {name}
        world.clock.set(FIRST + 100)
        world.run(VIEW)
        assert reader.marker_history.find_lost([name], reader.read([name])[1]) == set()


@pytest.mark.parametrize("kind", [Asynchronous, Blocking])
def test_4_5_a_restart_that_lost_nothing_is_no_loss(tmp_path: Path, node: Node, kind: type[Reader]) -> None:
    world, plan, name = make_world(tmp_path, node.url)
    materialize(world, 1, KEYS)
    with opened(kind, world.url, world.state, plan) as reader:
        reader.read([name])
        materialize(world, 2, KEYS)
        node.stop()
        node.start()
        assert reader.marker_history.find_lost([name], reader.read([name])[1]) == set()


def test_4_5_what_is_lost_behind_a_connection_that_stands_is_noticed_without_requests(
    tmp_path: Path, node: Node
) -> None:
    """A master that was made a replica, or a proxy: what the store says goes back, and nobody hung up."""
    world, plan, name = make_world(tmp_path, node.url)
    materialize(world, 1, KEYS)
    with opened(Asynchronous, world.url, world.state, plan) as reader:
        assert isinstance(reader, Asynchronous)
        assert reader.check() == set()
        old = node.ask("GET", name)
        materialize(world, 2, KEYS)
        assert reader.check() == set()
        node.ask("SET", name, old)
        materialize(world, 2, KEYS)  # reads the marker, applies again
        assert reader.marker_history.find_lost([name], reader.read([name])[1]) == set()
        materialize(world, 3, KEYS)
        node.ask("SET", name, old)
        assert reader.check() == {name}
        assert reader.marker_history.find_lost([name], reader.read([name])[1]) == {name}


@pytest.mark.parametrize("share", [0.0, pytest.param(0.4, marks=pytest.mark.soak), 0.9])
def test_4_5_states_that_were_lost_before_they_were_read(tmp_path: Path, node: Node, share: float) -> None:
    with line(tmp_path, node.url) as one:
        one.run()
        readers = [kind(node.url, one.world.root, one.world.plan) for kind in (Asynchronous, Blocking)]
        states = WindowStates(one.world.plan)
        assert is_answered(one, states)
        for reader in readers:
            assert reader.marker_history.find_lost(states.markers, reader.read(states.markers)[1]) == set()
        kept = journal(node).stat().st_size
        one.feed()
        one.run()
        end = journal(node).stat().st_size
        lose(node, kept + int(share * (end - kept)))
        for reader in readers:
            assert reader.marker_history.find_lost(states.markers, reader.read(states.markers)[1]), share
        one.recover()
        for reader in readers:
            assert reader.marker_history.find_lost(states.markers, reader.read(states.markers)[1]) == set()
            reader.close()


def is_answered(one: Line, states: WindowStates) -> bool:
    """Load the live generation, as a server does; return whether the view can be read."""
    reader = BlockingReader(one.world.url)
    try:
        t = one.world.clock.now_us()
        return read_online(one.world, reader, t, MarkerHistory(), one.world.views[0], states).answered
    finally:
        reader.close()


@pytest.mark.soak
@pytest.mark.parametrize("kind", [Asynchronous, Blocking])
def test_4_5_rows_that_the_new_master_never_had(tmp_path: Path, kind: type[Reader]) -> None:
    with sentinel_set(program("valkey"), tmp_path / "set") as watched:
        world, plan, name = make_world(tmp_path, watched.url)
        materialize(world, 1, KEYS)
        master = watched.master()
        watched.replicate()
        with opened(kind, world.url, world.state, plan) as reader:
            assert reader.marker_history.find_lost([name], reader.read([name])[1]) == set()
            replicas = watched.replicas()
            for each in replicas:
                each.freeze()
            # More than the buffers of the kernel between master and replica hold.
            materialize(world, 2, KEYS, note="x" * 500_000)
            master.kill()
            for each in replicas:
                each.thaw()
            watched.successor(master)
            assert reader.marker_history.find_lost([name], reader.read([name])[1]) == {name}


def test_4_5_positions_are_read_on_from_where_they_were_read(tmp_path: Path, node: Node) -> None:
    """The same answer as of a reader that begins anew, whatever was added or compacted between."""
    with line(tmp_path, node.url) as one:
        positions = LogPositions(ProjectState(one.world.root))
        positions.add_plan(one.world.plan)
        for _ in range(3):
            one.run()
            anew = LogPositions(ProjectState(one.world.root))
            anew.add_plan(one.world.plan)
            assert positions.read() == anew.read() != {}


def test_4_5_what_nobody_reads_any_more_is_not_expected(tmp_path: Path, node: Node) -> None:
    with line(tmp_path, node.url) as one:
        positions = LogPositions(ProjectState(one.world.root))
        positions.add_plan(one.world.plan)
        one.run()
        found = positions.read()
        assert found
        positions.set_plans([])
        one.run()
        assert positions.read() == {}
        positions.set_plans([one.world.plan])
        assert positions.read().keys() == found.keys()


@pytest.mark.soak
def test_4_5_a_server_that_nobody_asked_refuses_what_the_store_lost(tmp_path: Path, node: Node) -> None:
    repo = make_served(tmp_path / "p", node.url)
    # No look at models, and so none at the log, comes between the loss and the request.
    with served(repo, node.url, SKEWLESS_RELOAD_SECONDS="1000") as server:
        before = journal(node).stat().st_size
        later = NOW + 24 * HOUR
        write_sample(repo / "data", later)
        OffsetClock.create(repo / ".skewless/clock").set(later)
        with world_of(repo, node.url) as project:
            assert sum(report.accepted for report in project.materialize(check=False))
        lose(node, before)
        refused = until_answered(server)
        assert refused[0] == 503, refused
        with world_of(repo, node.url) as project:
            project.materialize(check=False)
        assert until_answered(server)[0] == 200


def until_answered(server: ServedProject) -> tuple[int, dict[str, str], str]:
    """Return the reply of the model that refuses missing features, once the store is reached."""
    return eventually(lambda: server.ask(STRICT), lambda reply: "did not answer" not in reply[2])
