"""SEMANTICS 4.6: new states are built while old ones are read and events arrive; the switch is one step."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import redis

from skewless.contract.errors import ConflictError, StoreError
from skewless.contract.keys import generation_key, window_marker
from skewless.contract.windows.hops import SECOND
from skewless.infra.log.generations import Generations
from skewless.infra.log.log_columns import EVENT, INGEST, REJECT, SEQ, SOURCE_POS, event_schema
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.schema import SEGMENT_SUM
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.port import OnlineStore
from skewless.infra.reads.online.redis_store import BlockingReader, RedisWriter
from skewless.infra.reads.online.window_states import StateView, lease_key
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.servers.node import Node
from tests.worlds.streams import VIEW, Online, StreamWorld, Traffic, brute, drain, event_of, look, read_online

PARTITIONS = 3


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._LINGER_S", 0.005)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._RETRY_S", 0.02)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._CHECK_S", 0.05)
    monkeypatch.setattr("skewless.contract.windows.codec.ROLL_RECORDS", 6)


@pytest.fixture
def store(world: StreamWorld) -> Iterator[OnlineStore]:
    with world.store() as one:
        yield one


def feed(world: StreamWorld, traffic: Traffic, broker: MemoryBroker, n: int = 30) -> None:
    world.clock.set(world.clock.now_us() + SECOND)
    for key, message in traffic.make(n, world.clock.now_us()):
        broker.append(key % PARTITIONS, message)


def build(world: StreamWorld) -> int:
    with world.store() as store, world.backfiller(store) as backfiller:
        generation = backfiller.build(world.views[0]).generation
    assert generation is not None
    return generation


@pytest.mark.soak
def test_states_are_built_again_and_again_while_events_come_and_readers_read(
    world: StreamWorld, store: OnlineStore
) -> None:
    world.ensure()
    broker, traffic, stop = MemoryBroker(PARTITIONS), Traffic(0), threading.Event()
    worker = world.worker(store, lambda owner: MemoryStream(broker, owner))
    reads: list[tuple[int, Online]] = []
    built: list[int] = []

    def read() -> None:
        reader, marker_history = BlockingReader(world.url), MarkerHistory()
        while not stop.wait(0.01):
            # As much later as events are older, so that states rolled up meanwhile can answer.
            t = world.clock.now_us() + 2 * SECOND
            reads.append((t, read_online(world, reader, t, marker_history, VIEW)))
        reader.close()

    def rebuild() -> None:
        while not stop.wait(0.05):
            built.append(build(world))

    threads = [threading.Thread(target=target) for target in (read, rebuild)]
    for thread in threads:
        thread.start()
    rounds = 0
    while rounds < 10 or len(built) < 3 or len({online.generation for _, online in reads}) < 3:
        rounds += 1
        # Few at last: a build reads all events, and would take longer and longer.
        feed(world, traffic, broker, n=30 if rounds <= 10 + 2 * len(built) else 1)
        for _ in range(4):
            worker.step()
    drain(worker)
    stop.set()
    for thread in threads:
        thread.join()
    drain(worker)
    world.check()
    traffic.check(world)
    assert worker.counts.trouble is None
    rows = world.logged()
    step = max(1, len(reads) // 50)
    for t, online in reads[::step]:
        assert online.answered
        events = [
            event_of(name, row)
            for i, name in enumerate(online.partitions)
            for row in rows[name]
            if row[REJECT] is None and row[SEQ] <= online.applied[row["id"], i]
        ]
        assert online.bits == brute(VIEW, events, t)


def test_an_old_generation_is_written_until_nobody_reads_it_and_a_minute_has_gone(
    world: StreamWorld, store: OnlineStore, valkey: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ensure()
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(0)
    worker = world.worker(store, lambda owner: MemoryStream(broker, owner))
    feed(world, traffic, broker)
    drain(worker)
    assert build(world) == 2
    keeper, lease = world.housekeeper(store), lease_key(world.root.name, VIEW, 1)
    feed(world, traffic, broker)
    drain(worker)
    stages = {item.number: item.stage for item in world.generations.list_all(VIEW)}
    assert stages == {1: "draining", 2: "live"}
    both = [StateView(world.root.name, VIEW, number) for number in (1, 2)]
    names = [states.keys.encode_columns({"id": range(10)}) for states in both]
    slots = [
        states.codec.unpack(store.get([n for n in each if n])).slots for states, each in zip(both, names, strict=True)
    ]
    assert slots[0].seq.tolist() == slots[1].seq.tolist()
    valkey.ask("SET", lease.decode(), "1")
    world.clock.set(world.clock.now_us() + 59 * SECOND)
    assert keeper.retire(VIEW) == 0
    world.clock.set(world.clock.now_us() + 2 * SECOND)
    assert keeper.retire(VIEW) == 0
    valkey.ask("DEL", lease.decode())
    with monkeypatch.context() as patch:
        patch.setattr(RedisWriter, "remove", refuse)
        with pytest.raises(StoreError):
            keeper.retire(VIEW)
    assert keeper.retire(VIEW) == 1
    assert [item.number for item in world.generations.list_all(VIEW)] == [2]
    assert valkey.ask("KEYS", f"sk:p:{VIEW.hash}.1:*") == []
    feed(world, traffic, broker)
    drain(worker)
    assert worker.counts.trouble is None
    assert valkey.ask("KEYS", f"sk:p:{VIEW.hash}.1:*") == []
    world.check()


def test_a_changed_definition_gets_states_beside_the_old_ones(world: StreamWorld, store: OnlineStore) -> None:
    world.ensure()
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(0)
    worker = world.worker(store, lambda owner: MemoryStream(broker, owner))
    feed(world, traffic, broker)
    drain(worker)
    worker.close()
    changed = replace(VIEW, name="w", scales={"x": 2})
    both = StreamWorld(root=world.root, url=world.url, clock=world.clock, views=(VIEW, changed))
    both.ensure()
    worker = both.worker(store, lambda owner: MemoryStream(broker, owner))
    feed(world, traffic, broker)
    drain(worker)
    both.check()
    traffic.check(both)


def test_of_two_that_build_at_once_the_first_gives_up_and_what_is_read_stands(
    world: StreamWorld, store: OnlineStore
) -> None:
    world.ensure()
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(0)
    worker = world.worker(store, lambda owner: MemoryStream(broker, owner))
    feed(world, traffic, broker)
    drain(worker)
    with world.backfiller(store) as backfiller, pytest.raises(ConflictError, match="by another process"):
        backfiller.build(VIEW, lambda _view, _done: _begin_too(world))
    feed(world, traffic, broker)
    drain(worker)
    world.check()
    assert [(item.number, item.stage) for item in world.generations.list_all(VIEW)] == [
        (1, "live"),
        (2, "given up"),
        (3, "building"),
    ]
    assert build(world) == 4
    world.clock.set(world.clock.now_us() + 61 * SECOND)
    assert world.housekeeper(store).retire(VIEW) == 3
    assert [(item.number, item.stage) for item in world.generations.list_all(VIEW)] == [(4, "live")]


def _begin_too(world: StreamWorld) -> None:
    if len(world.generations.list_all(VIEW)) < 3:
        world.generations.begin(VIEW, [], world.clock.now_us())


def test_a_store_that_is_emptied_while_states_are_built_refuses_the_build(
    world: StreamWorld, store: OnlineStore, valkey: Node
) -> None:
    world.ensure()
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(0)
    worker = world.worker(store, lambda owner: MemoryStream(broker, owner))
    feed(world, traffic, broker)
    drain(worker)
    live = world.generations.find_live(VIEW)
    with world.backfiller(store) as backfiller, pytest.raises(StoreError, match="may have lost rows"):
        backfiller.build(VIEW, lambda _view, _done: valkey.ask("FLUSHALL"))
    assert world.generations.find_live(VIEW) == live
    assert not world.online(world.clock.now_us()).answered
    world.ensure()
    drain(worker)
    world.check()


def test_servers_are_told_of_partitions_that_come_later(world: StreamWorld, store: OnlineStore, valkey: Node) -> None:
    """Also for a view that was built from an empty log, a lost store is not the same as zero."""
    world.ensure()
    assert json.loads(valkey.ask("GET", generation_key("p", VIEW).decode()))["partitions"] == []
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(0)
    worker = world.worker(store, lambda owner: MemoryStream(broker, owner))
    feed(world, traffic, broker)
    drain(worker)
    told = json.loads(valkey.ask("GET", generation_key("p", VIEW).decode()))
    assert told["partitions"] == sorted(world.logged())
    broker.recreate()
    traffic.forget()
    feed(world, traffic, broker)
    drain(worker)
    assert json.loads(valkey.ask("GET", generation_key("p", VIEW).decode()))["partitions"] == sorted(world.logged())
    world.check()


def test_generations_tell_their_stages(tmp_path: Path) -> None:
    one = Generations(ProjectState(tmp_path))
    assert one.find_live(VIEW) is None
    assert one.read_version(VIEW) == 0
    first = one.begin(VIEW, ["b", "a"], 1)
    assert (first.number, first.stage, first.partitions) == (1, "building", ("a", "b"))
    assert one.list_written(VIEW) == ()
    version = one.read_version(VIEW)
    one.switch(VIEW, 1, 2)
    assert one.read_version(VIEW) != version
    with pytest.raises(ConflictError):
        one.switch(VIEW, 1, 3)
    with pytest.raises(ConflictError):
        one.switch(VIEW, 7, 3)
    assert one.add_partitions(VIEW, ["c"])
    assert not one.add_partitions(VIEW, ["c", "a"])
    assert [item.pointer for item in one.list_all(VIEW)] == [b'{"generation": 1, "partitions": ["a", "b", "c"]}']
    one.switch(VIEW, one.begin(VIEW, [], 4).number, 5)
    assert [(item.number, item.stage, item.since_us) for item in one.list_all(VIEW)] == [
        (1, "draining", 5),
        (2, "live", 5),
    ]
    one.retire(VIEW, 1)
    assert one.begin(VIEW, [], 6).number == 3
    assert [item.number for item in Generations(ProjectState(tmp_path)).list_written(VIEW)] == [2]


def refuse(*_: object) -> int:
    raise redis.ConnectionError


def test_servers_are_told_of_an_imported_partition_when_its_marker_stands(
    world: StreamWorld, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise they would take the view for lost."""
    world.ensure()
    name = "events/s/import/0123"
    rows = pa.Table.from_pylist(
        [{"event": "e", "id": 1, EVENT: world.clock.now_us(), INGEST: world.clock.now_us(), SOURCE_POS: 0}],
        schema=event_schema(world.source),
    )
    PartitionLog(world.state, name).append(rows)
    real, told = RedisWriter.publish, []

    def publish(self: RedisWriter, key: bytes, pointer: bytes) -> None:
        listed = json.loads(pointer)["partitions"]
        marks = [window_marker("p", VIEW, json.loads(pointer)["generation"], part) for part in listed]
        assert None not in self.read_markers(marks)
        told.append(listed)
        real(self, key, pointer)

    monkeypatch.setattr(RedisWriter, "publish", publish)
    worker = world.worker(store, lambda owner: MemoryStream(MemoryBroker(PARTITIONS), owner))
    look(worker)
    assert name in told[-1]
    assert world.online(world.clock.now_us()).answered
    world.check()
    assert PartitionLog(world.state, name).has_all_ends()


def test_what_a_build_applied_is_known_when_a_worker_has_looked(world: StreamWorld, store: OnlineStore) -> None:
    """A build records no ends: it says nothing of other views."""
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(0)
    world.ensure()
    worker = world.worker(store, lambda owner: MemoryStream(broker, owner))
    feed(world, traffic, broker)
    drain(worker)
    no_ends = f"known_us = NULL, checksum = {SEGMENT_SUM.changed({'known_us': 'NULL'})}"
    world.state.database.execute(f"UPDATE segments SET {no_ends}")
    broker.recreate()
    look(worker)
    assert all(PartitionLog(world.state, name).has_all_ends() for name in world.logged())
