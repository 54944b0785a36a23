"""SEMANTICS 4.5 for windowed views: a store that lost states is brought back from the log; until then no zeros."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skewless.contract.errors import StoreError
from skewless.contract.windows.hops import SECOND
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.log.log_columns import REJECT, SEQ
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.servers import SingleServer
from skewless.infra.reads.online.window_states import WindowStates
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.reliability.losses import journal, lose
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.servers.sentinels import sentinel_set
from tests.worlds.streams import IDS, StreamWorld, Traffic, brute, drain, event_of, look
from tests.worlds.waiting import until

PARTITIONS = 3


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._LINGER_S", 0.0)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._RETRY_S", 0.02)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._CHECK_S", 0.05)
    monkeypatch.setattr("skewless.contract.windows.codec.ROLL_RECORDS", 6)


class Line:
    """A stream with a worker at work."""

    def __init__(self, world: StreamWorld, worker: Worker, broker: MemoryBroker) -> None:
        self.world, self.worker, self.broker = world, worker, broker
        self.traffic = Traffic(0)
        self.marker_history = MarkerHistory()

    def feed(self, n: int = 40) -> None:
        self.world.clock.set(self.world.clock.now_us() + 7 * SECOND)
        for key, message in self.traffic.make(n, self.world.clock.now_us()):
            self.broker.append(key % PARTITIONS, message)

    def run(self, n: int = 40) -> None:
        """Let some events arrive, be applied, and be seen by a reader that continues."""
        self.feed(n)
        drain(self.worker)
        self.world.check(marker_history=self.marker_history)

    def is_lost(self) -> bool:
        """Return whether every reader, old and new, reports the view as unavailable."""
        t = self.world.clock.now_us()
        anew = MarkerHistory.from_runs(ProjectState(self.world.root), [self.world.plan])
        answers = {self.world.online(t, marker_history).answered for marker_history in (self.marker_history, anew)}
        assert len(answers) == 1
        return answers == {False}

    def recover(self) -> None:
        look(self.worker)
        self.world.check(marker_history=self.marker_history)
        self.world.check(marker_history=MarkerHistory.from_runs(ProjectState(self.world.root), [self.world.plan]))
        self.traffic.check(self.world)


@contextmanager
def line(tmp_path: Path, url: str) -> Iterator[Line]:
    world = StreamWorld(root=tmp_path / "p", url=url)
    world.ensure()
    broker = MemoryBroker(PARTITIONS)
    with world.store() as store:
        yield Line(world, world.worker(store, lambda owner: MemoryStream(broker, owner)), broker)


def test_a_restart_with_all_data_costs_nothing_but_a_second_look(tmp_path: Path, node: Node) -> None:
    with line(tmp_path, node.url) as one:
        one.run()
        node.stop()
        one.feed()
        for _ in range(5):
            one.worker.step()
        assert one.worker.counts.trouble is not None
        node.start()
        assert not one.is_lost()
        one.recover()
        one.run()
        assert one.worker.counts.trouble is None


@pytest.mark.parametrize("traffic", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_a_store_that_comes_back_empty_is_filled_from_the_log(tmp_path: Path, node: Node, *, traffic: bool) -> None:
    with line(tmp_path, node.url) as one:
        one.run()
        one.run()
        lose(node, 0)
        assert one.is_lost()
        if traffic:
            one.feed()
        one.recover()
        one.run()


@pytest.mark.parametrize("share", [*(pytest.param(share, marks=pytest.mark.soak) for share in (0.3, 0.8)), 0.99])
def test_a_store_without_its_newest_writes_gets_them_again(tmp_path: Path, node: Node, share: float) -> None:
    with line(tmp_path, node.url) as one:
        one.run()
        kept = journal(node).stat().st_size
        one.run()
        one.run()
        end = journal(node).stat().st_size
        lose(node, kept + int(share * (end - kept)))
        if share < 0.99:
            assert one.is_lost()
        one.feed()
        one.recover()


def test_a_store_that_comes_back_with_an_older_snapshot_gets_the_rest_again(tmp_path: Path) -> None:
    with running(Node(program("valkey"), tmp_path / "snapshots")) as node, line(tmp_path, node.url) as one:
        one.run()
        node.ask("SAVE")
        one.run()
        node.kill()
        node.start()
        assert one.is_lost()
        one.feed()
        one.recover()
        one.run()


@pytest.mark.parametrize("at", [4, *(pytest.param(at, marks=pytest.mark.soak) for at in (0, 2, 7, 9))])
def test_a_store_that_is_emptied_in_the_middle_of_a_batch(
    tmp_path: Path, node: Node, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with line(tmp_path, node.url) as one:
        one.run()
        left = [at]
        real = SingleServer.call

        def call(self: SingleServer, *arguments: Any) -> Any:  # noqa: ANN401 - of the function that is wrapped
            left[0] -= 1
            if left[0] == -1:
                node.ask("FLUSHALL")
            return real(self, *arguments)

        monkeypatch.setattr(SingleServer, "call", call)
        one.feed(60)
        drain(one.worker)
        if left[0] < 0:
            assert one.is_lost() or one.worker.counts.rereads > 0
        one.recover()
        one.run()


def test_partitions_that_nobody_owns_any_more_are_brought_back_too(tmp_path: Path, node: Node) -> None:
    with line(tmp_path, node.url) as one:
        one.run()
        one.broker.recreate()
        one.traffic.forget()
        one.run()
        assert len(one.world.logged()) == 2 * PARTITIONS
        node.ask("FLUSHALL")
        assert one.is_lost()
        one.recover()
        lose(node, 0)
        assert one.is_lost()
        one.recover()


def test_a_log_that_is_an_older_copy_is_told_of_and_not_written_to(tmp_path: Path, node: Node) -> None:
    with line(tmp_path, node.url) as one:
        one.run()
        (name, rows) = max(one.world.logged().items(), key=lambda item: len(item[1]))
        one.worker.close()
        for sql in ("UPDATE log_partitions SET next_seq = 0", "DELETE FROM segments"):
            one.world.state.database.execute(f"{sql} WHERE partition = ?", name)
        for _ in range(8):
            one.worker.step()
            assert "older state" in str(one.worker.counts.trouble)
        assert one.world.logged()[name] == []
        with one.world.store() as store:
            with one.world.backfiller(store) as backfiller:
                backfiller.build(one.world.views[0])
            one.world.clock.set(one.world.clock.now_us() + 61 * SECOND)
            assert one.world.housekeeper(store).retire(one.world.views[0]) == 1
        drain(one.worker)
        assert len(one.world.logged()[name]) == len(rows)
        one.recover()


def test_states_that_are_put_again_are_read_when_all_are_back(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader was away when the last batches came, so it would be content with an older marker."""
    with line(tmp_path, node.url) as one:
        one.run()
        for _ in range(3):
            one.feed()
            drain(one.worker)
        node.ask("FLUSHALL")
        real, t = SingleServer.call, one.world.clock.now_us()
        whole = brute(one.world.views[0], one.world.events(), t)
        lost: list[bool] = []
        states = WindowStates(one.world.plan)
        states.load_generations(
            [live.pointer if (live := one.world.generations.find_live(one.world.views[0])) else None]
        )

        def call(self: SingleServer, *arguments: Any) -> Any:  # noqa: ANN401 - of the function that is wrapped
            for marker_history in (MarkerHistory(), one.marker_history):
                online = one.world.online(t, marker_history, states=states)
                assert not online.answered or online.bits == whole
                lost.append(not online.answered)
            return real(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(SingleServer, "call", call)
            look(one.worker)
        assert sum(lost) > 20
        one.recover()


def test_readers_never_see_less_than_they_saw(tmp_path: Path, node: Node) -> None:
    """One reads all the time while the store is emptied and restarted: the log's answer, or none."""
    with line(tmp_path, node.url) as one:
        one.run()
        stop = threading.Event()
        reads: list[tuple[int, Any]] = []
        reader = threading.Thread(target=_read, args=(one.world, stop, reads))
        reader.start()
        for turn in range(4):
            one.feed(30)
            drain(one.worker)
            node.ask("FLUSHALL")
            until(lambda: any(read is None for _, read in reads[-1:]))
            look(one.worker)
            _wait(reads)
            if turn == 2:
                lose(node, journal(node).stat().st_size // 2)
                look(one.worker)
                _wait(reads)
        stop.set()
        reader.join()
        rows = one.world.logged()
    answered = [(t, read) for t, read in reads if read is not None]
    assert len(answered) >= 4
    least: dict[tuple[int, str], int] = {}
    for t, read in answered:
        events = [
            event_of(name, row)
            for i, name in enumerate(read.partitions)
            for row in rows[name]
            if row[REJECT] is None and row[SEQ] <= read.applied[row["id"], i]
        ]
        assert read.bits == brute(one.world.views[0], events, t)
        for key in range(IDS):
            for i, name in enumerate(read.partitions):
                assert read.applied[key, i] >= least.get((key, name), -1)
                least[key, name] = int(read.applied[key, i])


def _wait(reads: list[tuple[int, Any]]) -> None:
    """Wait until two more reads have been answered: the second began when the first was done."""
    for _ in range(2):
        reads.append((0, None))
        until(lambda: reads[-1][1] is not None)


def _read(world: StreamWorld, stop: threading.Event, reads: list[tuple[int, Any]]) -> None:
    marker_history = MarkerHistory()
    while not stop.is_set():
        t = world.clock.now_us()
        try:
            online = world.online(t, marker_history)
        except StoreError:
            continue
        whole = online.read.unavailable is None or not np.any(online.read.unavailable)
        if whole:
            reads.append((t, online if online.answered else None))


@pytest.mark.soak
def test_soak_a_failover_loses_what_no_replica_had(tmp_path: Path) -> None:
    with sentinel_set(program("valkey"), tmp_path / "set") as watched, line(tmp_path, watched.url) as one:
        one.run()
        master = watched.master()
        watched.replicate()
        replicas = watched.replicas()
        for replica in replicas:
            replica.freeze()
        # More than the buffers of the kernel between master and replica hold.
        master.ask("SET", "junk", "x" * 30_000_000)
        one.run(400)
        master.kill()
        for replica in replicas:
            replica.thaw()
        watched.successor(master)
        assert one.is_lost()
        one.recover()
        one.run()
