"""SEMANTICS 2.6, 4.4: what is recorded as applied is in the states of every view that may answer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from skewless.contract.dtypes import DType
from skewless.contract.errors import PackageError
from skewless.contract.keys import window_marker
from skewless.contract.windows.hops import SECOND
from skewless.contract.windows.view import WindowView
from skewless.infra.ingest.streams.state_writer import StateWriter
from skewless.infra.ingest.streams.streams import Assignment
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.reads.online.port import OnlineStore
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.windows.cases import make_window_view
from tests.worlds.streams import SOURCE, VIEW, StreamWorld, Traffic, drain, look

PARTITIONS = 2
# Versions of one view, as a team makes them in a week.
VERSIONS = (
    VIEW,
    make_window_view({"id": DType.INT64}, filtered=True),
    replace(VIEW, aggregates=VIEW.aggregates[:3]),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._LINGER_S", 0.002)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._RETRY_S", 0.01)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._CHECK_S", 0.02)


class Team:
    """Two workers that load the needed views at different times, and a trainer that makes versions servable.

    Attributes:
        needed: views that may answer.
        servable: those of them that have been built and caught up since they are needed (8.5).
    """

    def __init__(self, world: StreamWorld, stack: ExitStack) -> None:
        self.needed: tuple[WindowView, ...] = (VIEW,)
        self.servable = {VIEW.hash}
        self.broker = MemoryBroker(PARTITIONS)
        self.traffic = Traffic(0)
        self.damaged = False
        self.world = world
        world.views, world.needed = VERSIONS, self._hashes
        self.store: OnlineStore = stack.enter_context(world.store())
        self.workers = [self._worker(stack.enter_context(world.store())) for _ in range(2)]

    def _hashes(self) -> set[str]:
        if self.damaged:
            raise PackageError("target versions", "are corrupt", fix="load the models again")
        return {view.hash for view in self.needed}

    def _worker(self, store: OnlineStore) -> Worker:
        worker = self.world.worker(store, lambda owner: MemoryStream(self.broker, owner))
        self.take_up(worker)
        return worker

    def feed(self) -> None:
        self.world.clock.set(self.world.clock.now_us() + SECOND)
        for key, message in self.traffic.make(8, self.world.clock.now_us()):
            self.broker.append(key % PARTITIONS, message)

    def need(self, views: tuple[WindowView, ...]) -> None:
        self.needed = views
        self.servable &= {view.hash for view in views}

    def prepare(self) -> None:
        """Build and catch up the needed views, as training does before it promotes."""
        with self.world.backfiller(self.store) as backfiller:
            backfiller.build_missing(self.needed)
        writer = StateWriter(
            project=self.world.root.name,
            source=SOURCE.name,
            views=self.needed,
            store=self.store,
            generations=self.world.generations,
            clock=self.world.clock,
        )
        for log in self.logs():
            writer.catch_up(log)
        self.servable = {view.hash for view in self.needed}

    def take_up(self, worker: Worker) -> None:
        worker.reassign(Assignment(SOURCE, self.needed), lambda owner: MemoryStream(self.broker, owner))

    def logs(self) -> list[PartitionLog]:
        return [PartitionLog(self.world.state, name) for name in log_partitions(self.world.state, SOURCE.name)]

    def check(self) -> None:
        """Check that no position is recorded as applied that a servable view lacks."""
        for log in self.logs():
            recorded = max(log.read_ends()["last"].to_pylist(), default=-1)
            for view in self.needed:
                live = self.world.generations.find_live(view)
                if view.hash in self.servable and live is not None:
                    marker = window_marker(self.world.root.name, view, live.number, log.partition)
                    assert (self.store.marker(marker) or 0) >= recorded, (view.hash, log.partition)


@pytest.fixture
def team(world: StreamWorld) -> Iterator[Team]:
    with ExitStack() as stack:
        yield Team(world, stack)


def test_an_event_is_not_known_before_each_needed_view_has_it(team: Team) -> None:
    team.prepare()
    drain(*team.workers)
    team.feed()
    drain(*team.workers)
    assert all(log.has_all_ends() for log in team.logs())
    team.need(VERSIONS[:2])
    team.prepare()
    team.feed()
    drain(*team.workers)
    # Applied to the view that the workers know, and missing in the other one that is served.
    assert not all(log.has_all_ends() for log in team.logs())
    team.check()
    for worker in team.workers:
        team.take_up(worker)
    drain(*team.workers)
    assert all(log.has_all_ends() for log in team.logs())
    team.check()


def test_what_is_needed_no_more_or_cannot_be_read_is_waited_for_no_longer_than_that(team: Team) -> None:
    team.prepare()
    for worker in team.workers:
        team.take_up(worker)
    team.need(VERSIONS[:2])
    team.feed()
    drain(*team.workers)
    assert not all(log.has_all_ends() for log in team.logs())
    team.need(VERSIONS[:1])
    drain(*team.workers)
    assert all(log.has_all_ends() for log in team.logs())
    team.damaged = True
    team.feed()
    drain(*team.workers)
    assert not all(log.has_all_ends() for log in team.logs())
    team.damaged = False
    drain(*team.workers)
    assert all(log.has_all_ends() for log in team.logs())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 6))])
def test_workers_that_take_up_views_at_any_time_never_record_too_much(team: Team, seed: int) -> None:
    chance = random.Random(seed)
    team.prepare()
    for _ in range(60):
        match chance.choice(["feed", "feed", "step", "step", "step", "need", "prepare", "take up", "look"]):
            case "feed":
                team.feed()
            case "step":
                chance.choice(team.workers).step()
            case "need":
                team.need(tuple(view for view in VERSIONS if chance.random() < 0.6) or (VIEW,))
            case "prepare":
                team.prepare()
            case "take up":
                team.take_up(chance.choice(team.workers))
            case _:
                worker = chance.choice(team.workers)
                worker._check_at = 0.0
                worker.step()
        team.check()
    team.prepare()
    for worker in team.workers:
        team.take_up(worker)
    drain(*team.workers)
    look(*team.workers)
    team.check()
    assert all(log.has_all_ends() for log in team.logs())
    assert sum(log.next_seq() for log in team.logs()) > 50
