"""The workers of one process: what ends them, what the process says of itself, how many files they write."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace

import pytest

from skewless.contract.dtypes import DType
from skewless.contract.settings import Settings
from skewless.contract.windows.hops import SECOND
from skewless.contract.windows.view import EventSource
from skewless.infra.definitions.plans.needed_views import NeededViews
from skewless.infra.ingest.streams.port import EventStream, OpenStream, RebalanceListener
from skewless.infra.ingest.streams.streams import Streams
from skewless.infra.ingest.streams.worker import _PAUSE
from skewless.infra.ingest.streams.worker_group import WorkerGroup
from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.host.processes import ProcessRecord, read_processes
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.engine import connect
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.windows.cases import make_window_view
from tests.worlds.streams import SOURCE, StreamWorld, Traffic
from tests.worlds.waiting import PATIENCE_S, until

PARTITIONS = 3


@pytest.fixture
def world(world: StreamWorld) -> StreamWorld:
    """A project whose states are built."""
    world.ensure()
    return world


@dataclass(frozen=True, kw_only=True)
class HalfBroken(Streams):
    """Streams in memory, of which one cannot be joined for a reason that nobody expected."""

    broker: MemoryBroker
    broken: str

    def open_stream(self, source: EventSource) -> OpenStream:
        def join(owner: RebalanceListener) -> EventStream:
            if source.name == self.broken:
                raise ZeroDivisionError(source.name)
            return MemoryStream(self.broker, owner)

        return join


def test_a_worker_that_dies_of_what_nobody_expected_ends_its_crew(world: StreamWorld) -> None:
    plan = replace(world.plan, sources=(world.source, replace(world.source, name="broken")))
    with connect(world.root / "spill", threads=1) as connection:
        streams = HalfBroken(
            plan=plan,
            state=ProjectState(world.root),
            settings=Settings(),
            url=lambda: world.url,
            clock=world.clock,
            connection=connection,
            broker=MemoryBroker(PARTITIONS),
            broken="broken",
        )
        worker_group = WorkerGroup(streams)
        worker_group.start()
        until(lambda: any(task.done() for task in worker_group._tasks))
        until(lambda: worker_group.source_counts[0].partitions == PARTITIONS)
        with pytest.raises(ZeroDivisionError):
            worker_group.check()
        worker_group.close()
        assert all(task.done() for task in worker_group._tasks)


def test_a_crew_says_that_it_lives_while_it_waits_for_states(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skewless.infra.ingest.streams.worker_group._POLL_S", 0.02)
    plan = world.plan
    changed = replace(plan, windows=(make_window_view({"id": DType.INT64}, filtered=True),))
    needed = [NeededViews(plan=plan, applied_hash="before", readers={})]
    with connect(world.root / "spill", threads=1) as connection:
        streams = HalfBroken(
            plan=plan,
            state=ProjectState(world.root),
            settings=Settings(),
            url=lambda: world.url,
            clock=world.clock,
            connection=connection,
            broker=MemoryBroker(PARTITIONS),
            broken="none",
            needed=lambda: needed[-1],
        )
        worker_group = WorkerGroup(streams, process_record=ProcessRecord(ProjectState(world.root), "stream"))
        with closing(worker_group):
            worker_group.start()
            with world.generations.hold_build(changed.windows[0]):
                needed.append(NeededViews(plan=changed, applied_hash="after", readers={}))
                until(lambda: worker_group._workers["s"].assignment.views == changed.windows)
                until(lambda: read_processes(ProjectState(world.root)))  # another thread writes the heartbeat
                (before,) = read_processes(ProjectState(world.root))
                until(lambda: read_processes(ProjectState(world.root))[0].beat_s > before.beat_s + 0.2)
                assert read_processes(ProjectState(world.root))[0].plan == plan.hash
            until(lambda: read_processes(ProjectState(world.root))[0].plan == "after")
            assert world.generations.find_live(changed.windows[0]) is not None


@pytest.mark.parametrize("lag", [0, 3, None])
def test_only_a_known_lag_of_zero_is_idle(world: StreamWorld, monkeypatch: pytest.MonkeyPatch, lag: int | None) -> None:
    monkeypatch.setattr("skewless.infra.ingest.streams.worker_group._IDLE_S", 0.05)
    monkeypatch.setattr(MemoryStream, "lag", lambda _: lag)
    with connect(world.root / "spill", threads=1) as connection:
        streams = HalfBroken(
            plan=world.plan,
            state=ProjectState(world.root),
            settings=Settings(),
            url=lambda: world.url,
            clock=world.clock,
            connection=connection,
            broker=MemoryBroker(PARTITIONS),
            broken="none",
        )
        with closing(WorkerGroup(streams)) as worker_group:
            worker_group.start()
            (counts,) = worker_group.source_counts
            until(lambda: counts.partitions == PARTITIONS and counts.lag == lag)
            time.sleep(0.1)
            assert worker_group.is_idle() is (lag == 0)


def test_small_files_are_merged_before_there_are_many(world: StreamWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.ingest.streams.worker_group._POLL_S", 0.02)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker_group._HOUSEKEEPING_S", 3_600.0)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker_group._HOUSEKEEPING_FILES", 70)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._LINGER_S", 0.0)
    broker, traffic = MemoryBroker(1), Traffic(0)
    with connect(world.root / "spill", threads=1) as connection:
        streams = HalfBroken(
            plan=world.plan,
            state=ProjectState(world.root),
            settings=Settings(stream_batch_rows=1),
            url=lambda: world.url,
            clock=world.clock,
            connection=connection,
            broker=broker,
            broken="none",
        )
        with closing(WorkerGroup(streams)) as worker_group:
            for _, message in traffic.make(100, world.clock.now_us()):
                broker.append(0, message)
            worker_group.start()
            (counts,) = worker_group.source_counts
            until(lambda: counts.batches >= 70)
            (name,) = log_partitions(world.state, SOURCE.name)
            until(lambda: any(segment.is_merged for segment in PartitionLog(world.state, name).segments()))
        world.check()


def test_a_worker_waits_between_batches_as_long_as_a_batch_takes(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._LINGER_S", 2 * PATIENCE_S)
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(0)
    with world.store() as store:
        worker = world.worker(store, lambda owner: MemoryStream(broker, owner))

        def feed() -> None:
            world.clock.set(world.clock.now_us() + SECOND)
            for key, message in traffic.make(40, world.clock.now_us()):
                broker.append(key % PARTITIONS, message)

        feed()
        worker.step()
        assert worker.counts.batches == PARTITIONS, "after a quiet time, events are written at once"
        for batches in (2 * PARTITIONS, 3 * PARTITIONS):
            feed()
            began_at = worker._written_at = time.monotonic()
            worker._batch_s = 0.05
            while worker.counts.batches < batches:
                worker.step()
            assert time.monotonic() - began_at >= 0.05 * _PAUSE
            assert 0 < worker._batch_s < PATIENCE_S
        worker.close()
        world.check()
        logs = [PartitionLog(world.state, name) for name in log_partitions(world.state, SOURCE.name)]
        assert all(log.has_all_ends() for log in logs), (
            "the end of the last batch is recorded before the partition is left"
        )
