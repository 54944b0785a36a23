"""SEMANTICS 4.2, 4.4: workers that are not alone, that lack a broker or room on the disk."""

from __future__ import annotations

import errno
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.errors import ConflictError, StoreError
from skewless.contract.windows.hops import SECOND
from skewless.infra.ingest.streams.port import EventStream, RebalanceListener
from skewless.infra.ingest.streams.redis_link import RedisSender
from skewless.infra.ingest.streams.redis_stream import RedisStream
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.log.log_columns import REJECT
from skewless.infra.platform.storage.project_state import ProjectState
from skewless_kafka.client import KafkaSender
from skewless_kafka.stream import KafkaStream
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.reliability.losses import DURABLE
from tests.servers.kafka import KafkaBroker, kafka_broker
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.fed_streams import PARTITIONS, feed, opening
from tests.worlds.streams import StreamWorld, Traffic, busy, drain, look
from tests.worlds.waiting import PATIENCE_S, until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._LINGER_S", 0.005)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._RETRY_S", 0.02)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._CHECK_S", 0.1)


@pytest.fixture
def world(world: StreamWorld) -> StreamWorld:
    """A project whose states are built."""
    world.ensure()
    return world


def step_until(worker: Worker, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, worker.counts
        worker.step()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 4))])
def test_4_2_of_two_workers_that_both_believe_they_own_a_partition_one_loses(world: StreamWorld, seed: int) -> None:
    """Two brokers with the same messages, each of which assigns everything to its only member."""
    chance, traffic = random.Random(seed), Traffic(seed)
    brokers = MemoryBroker(PARTITIONS), MemoryBroker(PARTITIONS)
    with world.store() as one, world.store() as two:
        workers = [world.worker(store, opening(broker)) for store, broker in zip((one, two), brokers, strict=True)]
        for worker in workers:
            worker.step()  # both have looked at the logs while these were empty
        lost = 0
        for _ in range(6):
            feed(world, traffic, *brokers)
            for _ in range(8):
                worker = chance.choice(workers)
                worker.step()
                lost += "another process" in str(worker.counts.trouble)
        drain(*workers)
        world.check()
        traffic.check(world)
        assert lost > 0
        assert sum(worker.counts.accepted for worker in workers) == len(traffic.good)


class Refusing(MemoryStream):
    """Refuses for good when it is closed."""

    def close(self) -> None:
        super().close()
        raise StoreError("broker", "says no", fix="ask again")


def test_a_stream_that_cannot_be_closed_is_left_behind(world: StreamWorld) -> None:
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(0)
    with world.store() as store:
        worker = world.worker(store, lambda owner: Refusing(broker, owner))
        worker.step()
        worker.close()
        assert not worker._partition_workers
        feed(world, traffic, broker)
        drain(worker)
        worker.run(lambda: False)
    world.check()
    traffic.check(world)


def test_a_broker_that_goes_away_and_comes_back(world: StreamWorld) -> None:
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(0)
    with world.store() as store:
        worker = world.worker(store, opening(broker))
        feed(world, traffic, broker)
        worker.step()
        broker.away = True
        for _ in range(3):
            worker.step()
        assert "away" in str(worker.counts.trouble)
        broker.away = False
        feed(world, traffic, broker)
        drain(worker)
        assert worker.counts.trouble is None
    world.check()
    traffic.check(world)


def redis_stream(url: str, world: StreamWorld, n: int = PARTITIONS) -> Callable[[RebalanceListener], EventStream]:
    db = ProjectState(world.root).database
    return lambda owner: RedisStream(
        url, database=db, project="p", source="s", n_partitions=n, owner=owner, group="g", lease_s=1.0, timeout_s=0.5
    )


def test_the_redis_of_a_stream_is_killed_and_comes_back(world: StreamWorld, tmp_path: Path) -> None:
    options = {**DURABLE, "appendfsync": "always"}
    with running(Node(program("valkey"), tmp_path / "stream", options)) as node, world.store() as store:
        traffic, sender = Traffic(0), RedisSender(node.url, project="p", source="s", n_partitions=PARTITIONS)
        worker = world.worker(store, redis_stream(node.url, world))
        for _ in range(2):
            world.clock.set(world.clock.now_us() + 7 * SECOND)
            pairs = traffic.make(60, world.clock.now_us())
            sender.send([message for _, message in pairs], [str(key) for key, _ in pairs])
            worker.step()
            node.kill()
            for _ in range(3):
                worker.step()
            assert "did not answer" in str(worker.counts.trouble)
            node.start()
            drain(worker, more=lambda: worker.counts.trouble is not None)
        worker.close()
        sender.close()
    world.check()
    traffic.check(world)


@pytest.mark.parametrize("id_column", ["event", None])
def test_a_worker_that_was_paused_longer_than_its_leases_cannot_append_after_its_successor(
    world: StreamWorld, tmp_path: Path, id_column: str | None
) -> None:
    """It was paused after a read, so it still believes that the partitions are its own."""
    world.source = replace(world.source, id_column=id_column)
    with (
        running(Node(program("valkey"), tmp_path / "stream")) as node,
        world.store() as store,
        world.store() as other_store,
    ):
        traffic, sender = Traffic(0), RedisSender(node.url, project="p", source="s", n_partitions=PARTITIONS)
        paused, heir = (world.worker(one, redis_stream(node.url, world)) for one in (store, other_store))
        step_until(paused, lambda: len(paused._partition_workers) == PARTITIONS)
        assert paused._stream is not None
        pairs = traffic.make(60, world.clock.now_us())
        sender.send([message for _, message in pairs], [str(key) for key, _ in pairs])
        for messages in paused._stream.poll(1_000, 0.0):
            paused._partition_workers[messages.partition].add_messages(messages)
        assert any(one.waiting for one in paused._partition_workers.values())
        time.sleep(1.1)
        step_until(heir, lambda: heir.counts.read >= len(pairs))
        logged = world.logged()
        with pytest.raises(ConflictError, match="was written by another process"):
            paused._write_batch()
        assert world.logged() == logged
        paused.step()
        assert not any(one.waiting for one in paused._partition_workers.values())
        for worker in (paused, heir):
            worker.close()
        sender.close()
    assert paused.counts.accepted == 0


@pytest.mark.parametrize("end", [KafkaBroker.kill, pytest.param(KafkaBroker.stop, marks=pytest.mark.soak)])
def test_a_kafka_broker_ends_and_comes_back(
    world: StreamWorld, tmp_path: Path, end: Callable[[KafkaBroker], None]
) -> None:
    quick = {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 200, "reconnect.backoff.max.ms": 200}
    with kafka_broker(tmp_path / "kafka") as broker, world.store() as store:
        broker.make("arrivals", PARTITIONS)
        traffic, sender = Traffic(0), KafkaSender(broker.bootstrap, "arrivals", timeout_s=5.0)
        worker = world.worker(
            store, lambda owner: KafkaStream(broker.bootstrap, "arrivals", owner=owner, group="g", settings=quick)
        )
        for turn in range(2):
            world.clock.set(world.clock.now_us() + 7 * SECOND)
            pairs = traffic.make(60, world.clock.now_us())
            sender.send([message for _, message in pairs], [str(key) for key, _ in pairs])
            step_until(worker, lambda: worker.counts.read)
            if turn == 0:
                end(broker)
                step_until(worker, lambda: worker.counts.trouble)
                broker.start()
        drain(worker, more=lambda: len(worker._partition_workers) < PARTITIONS or worker.counts.read < 120)
        worker.close()
        sender.close()
    world.check()
    traffic.check(world)


def take(world: StreamWorld, kafka: KafkaBroker, topic: str, event_bytes: int) -> int:
    """Take all events of a topic; return how many of them are accepted."""
    with world.store() as store:
        stream = partial(KafkaStream, kafka.bootstrap, topic, group=topic)
        worker = world.worker(store, lambda owner: stream(owner=owner), event_bytes=event_bytes)
        step_until(worker, lambda: worker.counts.read and not busy(worker))
        worker.close()
        return worker.counts.accepted


def test_an_event_of_10_mb_waits_in_quarantine_until_event_bytes_allows_it(
    world: StreamWorld, kafka: KafkaBroker
) -> None:
    topic, n_bytes = f"t{uuid.uuid4().hex}", 10_000_000
    kafka.make(topic, 1, most_bytes=n_bytes + 100)
    sender = KafkaSender(kafka.bootstrap, topic, settings={"message.max.bytes": n_bytes + 100})
    accepted = []
    for number, event_bytes in enumerate((n_bytes - 1, n_bytes)):
        body = json.dumps({"event": f"e{number}", "id": 1, "ts": world.clock.now_us(), "x": 1.5, "s": ""})
        text = body.replace('"s": ""', f'"s": "{"x" * (n_bytes - len(body))}"').encode()
        assert len(text) == n_bytes
        sender.send([text])
        accepted.append(take(world, kafka, topic, event_bytes))
    sender.close()
    assert accepted == [0, 1]
    (refused, row) = next(iter(world.logged().values()))
    assert refused[REJECT] == f"the message has {n_bytes} bytes, more than event_bytes ({n_bytes - 1})"
    assert (row[REJECT], row["event"], len(row["s"])) == (None, "e1", n_bytes - len(body))
    world.check()


@pytest.mark.parametrize("where", ["open", "fsync", "folder"])
def test_a_full_disk_is_waited_for(world: StreamWorld, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(0)
    with world.store() as store:
        worker = world.worker(store, opening(broker))
        feed(world, traffic, broker)
        drain(worker)
        with monkeypatch.context() as patch:
            _fill(patch, where)
            feed(world, traffic, broker)
            troubles = []
            for _ in range(12):
                worker.step()
                time.sleep(0.01)
                troubles.append(str(worker.counts.trouble))
            assert all("No space left" in trouble for trouble in troubles[-5:]), troubles
        drain(worker)
        worker.step()
        assert worker.counts.trouble is None
    world.check()
    traffic.check(world)


def test_a_log_that_cannot_be_written_keeps_no_other_from_going_on(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, traffic, real = MemoryBroker(PARTITIONS), Traffic(0), Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        if "/m0/0/" in str(path):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, data)

    with world.store() as store:
        worker = world.worker(store, opening(broker))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", write_bytes)
            feed(world, traffic, broker)
            step_until(worker, lambda: worker.counts.batches == PARTITIONS - 1)
            feed(world, traffic, broker)
            step_until(worker, lambda: worker.counts.batches == 2 * (PARTITIONS - 1))
            assert "Permission denied" in str(worker.counts.trouble)
        drain(worker)
        worker.step()
        assert worker.counts.trouble is None
    world.check()
    traffic.check(world)


def _fill(patch: pytest.MonkeyPatch, where: str) -> None:
    """Let the disk have no room for one kind of step."""
    real_sync, real_open = os.fsync, Path.open

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_sync(descriptor: int) -> None:
        is_folder = Path(f"/proc/self/fd/{descriptor}").readlink().is_dir()
        full() if is_folder == (where == "folder") else real_sync(descriptor)

    def full_open(path: Path, mode: str = "r", **more: Any) -> Any:  # noqa: ANN401 - as Path.open
        return full() if mode == "wb" else real_open(path, mode, **more)

    if where == "open":
        patch.setattr(Path, "open", full_open)
    else:
        patch.setattr(os, "fsync", full_sync)


@pytest.mark.soak
def test_7_six_partitions_move_between_one_and_three_workers_under_load(world: StreamWorld, tmp_path: Path) -> None:
    n = 6
    with running(Node(program("valkey"), tmp_path / "stream")) as node, ExitStack() as stack:
        traffic = Traffic(0)
        sender = RedisSender(node.url, project="p", source="s", n_partitions=n)
        workers: list[tuple[Worker, threading.Event, threading.Thread]] = []
        done: list[Worker] = []

        def join() -> None:
            store = stack.enter_context(world.store())
            worker, stop = world.worker(store, redis_stream(node.url, world, n), max_rows=50), threading.Event()
            thread = threading.Thread(target=worker.run, args=(lambda: not stop.is_set(),))
            workers.append((worker, stop, thread))
            thread.start()

        def leave() -> None:
            worker, stop, thread = workers.pop(0)
            stop.set()
            thread.join()
            done.append(worker)

        for change in (join, join, join, leave, leave, join, leave):
            change()
            for _ in range(4):
                world.clock.set(world.clock.now_us() + SECOND)
                pairs = traffic.make(60, world.clock.now_us())
                sender.send([message for _, message in pairs], [str(key) for key, _ in pairs])
                time.sleep(0.03)
        while len(workers) > 1:
            leave()
        # A lane that was just taken over is not busy yet.
        until(lambda: len(workers[0][0]._partition_workers) == n and not busy(workers[0][0]) and traffic.arrived(world))
        leave()
        sender.close()
    traffic.check(world)
    world.check()
    assert sum(worker.counts.accepted for worker in done) == len(traffic.good)
    assert sum(worker.counts.accepted > 0 for worker in done) >= 3


def test_a_worker_looks_after_a_store_when_nothing_comes(world: StreamWorld, valkey: Node) -> None:
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(0)
    with world.store() as store:
        worker = world.worker(store, opening(broker))
        feed(world, traffic, broker)
        drain(worker)
        assert worker.counts.rereads == 0
        valkey.ask("FLUSHALL")
        look(worker)
        world.check()
        assert worker.counts.rereads == worker.counts.accepted + worker.counts.rejected
