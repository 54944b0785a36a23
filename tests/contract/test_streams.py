"""The contract of every event stream (infra/ingest/streams/port.py): one suite, over memory and over real brokers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.ingest.streams.port import Partition
from tests.contract.streams import (
    PLACES,
    KafkaPlace,
    Log,
    MemoryPlace,
    N,
    RedisPlace,
    StreamKind,
    Worker,
    numbered,
    place_of,
    poll_until,
    send,
    spread,
)
from tests.servers.kafka import kafka_broker, named_broker
from tests.servers.node import Node, running
from tests.servers.programs import program


@pytest.fixture(params=PLACES)
def stream_place(request: pytest.FixtureRequest) -> StreamKind:
    return place_of(request)


@pytest.fixture(params=["memory", "valkey", "kafka"])
def stoppable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StreamKind]:
    """Yield a place whose broker is of this test alone."""
    if request.param == "memory":
        yield MemoryPlace()
    elif request.param == "valkey":
        with running(Node(program("valkey"), tmp_path, {"appendonly": "yes"})) as node:
            yield RedisPlace(node, tmp_path)
    else:
        if named_broker():
            pytest.skip("a broker that the tests did not start is not stopped")
        with kafka_broker(tmp_path) as broker:
            yield KafkaPlace(broker)


def test_every_message_comes_once_and_those_of_a_key_in_their_order(stream_place: StreamKind) -> None:
    keys = spread(1_000)
    send(stream_place, numbered(1_000), keys)
    log = Log()
    worker = Worker(stream_place, log)
    poll_until([worker], lambda: len(log.payloads()) >= 1_000)
    assert worker.poll() == 0
    log.assert_in_order()
    assert log.in_any_order() == sorted(numbered(1_000))
    places = {key: set[str]() for key in keys}
    for partition, entries in log.read.items():
        numbers = [int(payload or b"") for _, payload in entries]
        for key in {keys[number] for number in numbers}:
            places[key].add(partition.name)
            mine = [number for number in numbers if keys[number] == key]
            assert mine == sorted(mine)
    assert all(len(names) == 1 for names in places.values())
    worker.stream.close()


def test_messages_without_a_key_come_once_too(stream_place: StreamKind) -> None:
    send(stream_place, numbered(100))
    log = Log()
    worker = Worker(stream_place, log)
    poll_until([worker], lambda: len(log.payloads()) >= 100)
    assert log.in_any_order() == sorted(numbered(100))
    worker.stream.close()


def test_one_worker_owns_all_partitions_and_lets_them_go_when_it_closes(stream_place: StreamKind) -> None:
    log = Log()
    worker = Worker(stream_place, log)
    poll_until([worker], lambda: len(worker.owned) == N)
    assert {partition.name for partition in worker.owned} == {str(index) for index in range(N)}
    assert worker.stream.trouble is None
    worker.stream.close()
    assert not worker.owned
    assert len(worker.revocations) == N


def test_4_2_reading_goes_on_where_the_log_ends_whatever_was_committed(stream_place: StreamKind) -> None:
    send(stream_place, numbered(200), spread(200))
    log = Log()
    first = Worker(stream_place, log)
    poll_until([first], lambda: len(log.payloads()) == 200)
    first.stream.close()
    for entries in log.read.values():
        del entries[len(entries) // 2 :]
    again = Worker(stream_place, log)
    poll_until([again], lambda: len(log.payloads()) >= 200)
    log.assert_in_order()
    assert log.in_any_order() == sorted(numbered(200))
    again.stream.close()


def test_a_worker_without_a_log_reads_from_the_oldest_message(stream_place: StreamKind) -> None:
    send(stream_place, numbered(50), spread(50))
    for _ in range(2):
        log = Log()
        worker = Worker(stream_place, log)
        poll_until([worker], log.has(50))
        worker.stream.commit(worker.next_positions())
        worker.stream.close()


def test_a_message_without_a_body_is_none(stream_place: StreamKind) -> None:
    stream_place.send_nothing()
    log = Log()
    worker = Worker(stream_place, log)
    poll_until([worker], log.payloads)
    assert log.payloads() == [None]
    worker.stream.close()


def test_bodies_are_binary_safe_and_may_be_empty_or_large(stream_place: StreamKind) -> None:
    bodies = [b"", bytes(range(256)), b"\r\n", b"x" * 900_000]
    send(stream_place, bodies, ["k"] * len(bodies))
    log = Log()
    worker = Worker(stream_place, log)
    poll_until([worker], lambda: len(log.payloads()) == len(bodies))
    assert log.payloads() == bodies
    worker.stream.close()


def test_nothing_comes_from_an_empty_stream_and_nothing_is_sent_for_nothing(stream_place: StreamKind) -> None:
    send(stream_place, [])
    log = Log()
    worker = Worker(stream_place, log)
    poll_until([worker], lambda: len(worker.owned) == N)
    assert worker.poll(timeout_s=0.2) == 0
    assert worker.poll(timeout_s=0.0) == 0
    worker.stream.close()


def test_about_so_many_messages_come_as_were_asked_for(stream_place: StreamKind) -> None:
    send(stream_place, numbered(500), spread(500))
    log = Log()
    worker = Worker(stream_place, log)
    poll_until([worker], lambda: len(worker.owned) == N)
    while len(log.payloads()) < 500:
        assert worker.poll(limit=10, timeout_s=1.0) <= 10 + N
    worker.stream.close()


def test_what_is_committed_is_kept_and_lag_is_what_was_not_returned(stream_place: StreamKind) -> None:
    send(stream_place, numbered(100), spread(100))
    log = Log()
    worker = Worker(stream_place, log)
    poll_until([worker], lambda: len(log.payloads()) == 100)
    poll_until([worker], lambda: worker.stream.lag() == 0)
    expected = {int(partition.name): at for partition, at in worker.next_positions().items()}
    worker.stream.commit(worker.next_positions())
    worker.stream.commit({Partition(name="0", epoch="another"): 5})
    poll_until([worker], lambda: stream_place.committed("g") == expected)
    send(stream_place, numbered(7, 100), spread(7))
    poll_until([worker], lambda: len(log.payloads()) == 107)
    poll_until([worker], lambda: worker.stream.lag() == 0)
    assert stream_place.committed("g") == expected
    worker.stream.close()


def test_lag_counts_down_as_messages_are_returned(stream_place: StreamKind) -> None:
    send(stream_place, numbered(300), ["one"] * 300)
    log = Log()
    worker = Worker(stream_place, log)
    while len(log.payloads()) < 100 or worker.stream.lag() is None:
        worker.poll(limit=5)
    assert worker.stream.lag() == 300 - len(log.payloads())
    worker.stream.close()


def test_groups_do_not_take_messages_from_each_other(stream_place: StreamKind) -> None:
    send(stream_place, numbered(40), spread(40))
    logs = Log(), Log()
    workers = [Worker(stream_place, logs[0], "g"), Worker(stream_place, logs[1], "h")]
    poll_until(workers, lambda: all(len(log.payloads()) == 40 for log in logs))
    for worker in workers:
        worker.stream.close()


def test_members_share_the_partitions_and_nothing_is_lost_as_one_joins_and_leaves(stream_place: StreamKind) -> None:
    log, stop, sent = Log(), threading.Event(), list[bytes]()

    def load() -> None:
        sender = stream_place.sender()
        while not stop.is_set():
            batch = numbered(20, len(sent))
            sender.send(batch, spread(20))
            sent.extend(batch)
            stop.wait(0.01)
        sender.close()

    loading = threading.Thread(target=load)
    loading.start()
    try:
        workers = [Worker(stream_place, log), Worker(stream_place, log)]
        poll_until(workers, lambda: [len(worker.owned) for worker in workers] == [2, 2])
        third = Worker(stream_place, log)
        everyone = [*workers, third]
        poll_until(everyone, lambda: sorted(len(worker.owned) for worker in everyone) == [1, 1, 2])
        n = len(sent)
        poll_until(everyone, lambda: len(sent) > n + 100)
        third.stream.close()
        poll_until(workers, lambda: [len(worker.owned) for worker in workers] == [2, 2])
    finally:
        stop.set()
        loading.join()
    poll_until(workers, lambda: len(log.payloads()) >= len(sent))
    log.assert_in_order()
    assert log.in_any_order() == sorted(sent)
    for worker in workers:
        worker.stream.close()


class Reluctant(Worker):
    """Fails to take a partition over the first three times."""

    failures = 0

    def on_assigned(self, partition: Partition) -> int | None:
        self.failures += 1
        if self.failures <= 3:
            raise StoreError("log", "is away", fix="wait")
        return super().on_assigned(partition)


def test_an_owner_that_fails_to_take_a_partition_over_is_asked_again(stream_place: StreamKind) -> None:
    send(stream_place, numbered(40), spread(40))
    log = Log()
    worker = Reluctant(stream_place, log)
    seen = 0
    while len(log.payloads()) < 40:
        try:
            worker.poll()
        except StoreError:
            seen += 1
    assert seen == 3
    assert len(worker.owned) == N
    log.assert_in_order()
    assert log.in_any_order() == sorted(numbered(40))
    worker.stream.close()
    assert not log.owners


def test_a_broker_that_is_away_is_waited_for(stoppable: StreamKind) -> None:
    log = Log()
    send(stoppable, numbered(50), spread(50))
    worker, sender = Worker(stoppable, log), stoppable.sender()
    poll_until([worker], lambda: len(log.payloads()) == 50)
    stoppable.away()
    poll_until([worker], lambda: worker.stream.trouble)
    assert worker.poll(timeout_s=0.2) == 0
    assert list(worker.stream.find_drained()) == []
    with pytest.raises(StoreError):
        sender.send([b"never"], ["k"])
    stoppable.back()
    poll_until([worker], lambda: worker.stream.trouble is None)
    sender.send(numbered(50, 50), spread(50))
    poll_until([worker], log.has(100))
    poll_until([worker], lambda: len(worker.owned) == N and worker.all_drained)
    log.assert_in_order()
    assert log.in_any_order() == sorted(numbered(100))
    worker.stream.close()
    sender.close()


def test_1_4_a_stream_that_was_deleted_and_made_again_is_another_life(stream_place: StreamKind) -> None:
    log = Log()
    send(stream_place, numbered(60), spread(60))
    worker = Worker(stream_place, log)
    poll_until([worker], lambda: len(log.payloads()) == 60)
    old = worker.owned
    stream_place.recreate()
    send(stream_place, numbered(30, 60), spread(30))
    poll_until([worker], lambda: len(log.payloads()) == 90)
    assert set(worker.revocations) == old
    assert len(worker.owned) == N
    assert not worker.owned & old
    new = [payload for partition in worker.owned for _, payload in log.read[partition]]
    assert sorted(new, key=str) == sorted(numbered(30, 60), key=str)
    worker.stream.close()
