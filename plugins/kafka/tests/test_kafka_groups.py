"""Workers share a topic with both protocols of Kafka's groups; topics are recreated, expire and are denied."""

from __future__ import annotations

import time
import uuid
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from structlog.testing import capture_logs

import tests.contract.streams
from skewless.contract.errors import StoreError
from skewless.infra.ingest.streams.port import RebalanceListener
from skewless_kafka.client import KafkaSender
from skewless_kafka.stream import KafkaStream
from tests.contract.streams import KafkaPlace, Log, N, Worker, numbered, poll_until, send, spread
from tests.servers.kafka import KafkaBroker, kafka_broker

CLASSIC: dict[str, str] = {}
NEWER = {"group.protocol": "consumer"}


@pytest.fixture(params=[pytest.param(CLASSIC, id="classic"), pytest.param(NEWER, id="consumer")])
def kafka_place(request: pytest.FixtureRequest, kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> KafkaPlace:
    """A topic whose workers use one of the protocols; in the newer one, the broker sets the times."""
    if request.param:
        monkeypatch.setattr(tests.contract.streams, "QUICK", {"reconnect.backoff.max.ms": 200})
    made = KafkaPlace(kafka)
    made.settings = request.param
    return made


def has_read(worker: Worker, n: int) -> bool:
    return worker.log.has(n)() and worker.all_drained


def end(*workers: Worker) -> None:
    for worker in workers:
        worker.stream.close()


def test_workers_share_partitions_and_take_over_with_each_protocol(kafka_place: KafkaPlace) -> None:
    log = Log()
    send(kafka_place, numbered(100), spread(100))
    first = Worker(kafka_place, log)
    poll_until([first], log.has(100))
    second = Worker(kafka_place, log)
    pair = [first, second]
    poll_until(pair, lambda: [len(worker.owned) for worker in pair] == [2, 2])
    send(kafka_place, numbered(100, 100), spread(100))
    poll_until(pair, log.has(200))
    second.stream.close()
    send(kafka_place, numbered(100, 200), spread(100))
    poll_until([first], lambda: len(first.owned) == N and log.has(300)())
    log.assert_in_order()
    assert log.in_any_order() == sorted(numbered(300))
    end(first)


def test_a_recreated_topic_that_has_the_old_offsets_again_is_read_once_from_its_beginning(
    kafka_place: KafkaPlace,
) -> None:
    """The client goes on at the old offsets once it knows the new topic."""
    for _ in range(3):
        log = Log()
        send(kafka_place, numbered(100), spread(100))
        worker = Worker(kafka_place, log)
        poll_until([worker], log.has(100))
        kafka_place.recreate()
        send(kafka_place, numbered(2_000, 100), spread(2_000))
        poll_until([worker], partial(has_read, worker, 2_100))
        log.assert_in_order()
        assert log.in_any_order() == sorted(numbered(2_100))
        end(worker)
        kafka_place.recreate()


def test_a_topic_that_was_recreated_while_no_worker_ran_is_read_from_its_beginning(kafka: KafkaBroker) -> None:
    kafka_place, log = KafkaPlace(kafka), Log()
    send(kafka_place, numbered(60), spread(60))
    worker = Worker(kafka_place, log)
    poll_until([worker], log.has(60))
    worker.stream.commit(worker.next_positions())
    end(worker)
    kafka_place.recreate()
    send(kafka_place, numbered(300, 60), spread(300))
    worker = Worker(kafka_place, log)
    poll_until([worker], log.has(360))
    log.assert_in_order()
    assert log.in_any_order() == sorted(numbered(360))
    end(worker)


def test_retention_that_overtakes_a_worker_is_named(kafka_place: KafkaPlace) -> None:
    log = Log()
    send(kafka_place, numbered(40), ["k"] * 40)
    worker = Worker(kafka_place, log)
    poll_until([worker], log.has(40))
    (partition,) = (partition for partition, entries in log.read.items() if entries)
    end(worker)
    send(kafka_place, numbered(40, 40), ["k"] * 40)
    expired = TopicPartition(kafka_place.topic, int(partition.name), 60)
    admin = kafka_place.broker.admin()
    admin.delete_records([expired])[expired].result(10)
    worker, troubles = Worker(kafka_place, log), set[str | None]()

    def look() -> bool:
        troubles.add(worker.stream.trouble)
        return log.has(60)()

    with capture_logs() as logs:
        poll_until([worker], look)
    assert [payload for _, payload in log.read[partition]] == [*numbered(40), *numbered(20, 60)]
    assert any("has only positions 60 to 80, and was to be read from 40" in (trouble or "") for trouble in troubles)
    (lost,) = [entry for entry in logs if entry["event"] == "stream_positions_lost"]
    assert (lost["position"], lost["oldest"], lost["end"], lost["cut"]) == (40, 60, 80, None)
    end(worker)


def test_after_a_restart_markers_of_transactions_are_gaps_and_no_losses(kafka_place: KafkaPlace) -> None:
    producer = Producer({"bootstrap.servers": kafka_place.broker.bootstrap, "transactional.id": kafka_place.topic})
    producer.init_transactions(10)
    log = Log()
    for first in range(0, 60, 20):
        producer.begin_transaction()
        for body in numbered(20, first):
            producer.produce(kafka_place.topic, body, partition=0)
        producer.commit_transaction(10)
        worker = Worker(kafka_place, log)
        with capture_logs() as logs:
            poll_until([worker], partial(has_read, worker, first + 20))
        assert not [entry for entry in logs if entry["event"] == "stream_positions_lost"]
        end(worker)
    (entries,) = (entries for entries in log.read.values() if entries)
    assert [payload for _, payload in entries] == numbered(60)
    assert [at for at, _ in entries] == [*range(20), *range(21, 41), *range(42, 62)]


class OneGroup(KafkaPlace):
    """A topic whose workers are in one group with those of other topics, as the sources of a project are."""

    def stream(self, owner: RebalanceListener, group: str) -> KafkaStream:
        settings = {**tests.contract.streams.QUICK, "group.instance.id": "one"}
        return KafkaStream(self.broker.bootstrap, self.topic, owner=owner, group=f"static-{group}", settings=settings)


def test_the_sources_of_a_worker_are_static_members_of_one_group(kafka: KafkaBroker) -> None:
    group = uuid.uuid4().hex
    workers = [Worker(OneGroup(kafka), Log(), group) for _ in range(2)]
    poll_until(workers, lambda: [len(worker.owned) for worker in workers] == [N, N])
    end(*workers)


def test_a_broker_without_the_newer_protocol_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests.contract.streams, "QUICK", {})
    with kafka_broker(tmp_path, properties="group.coordinator.rebalance.protocols=classic\n") as broker:
        kafka_place = KafkaPlace(broker)
        kafka_place.settings = NEWER
        worker = Worker(kafka_place, Log())
        with pytest.raises(StoreError, match=r"Fix: install Apache Kafka 4 or later, or remove group\.protocol"):
            poll_until([worker], lambda: False)
        end(worker)


@pytest.mark.soak
def test_a_client_beyond_its_quota_is_slowed_and_goes_on(tmp_path: Path) -> None:
    with kafka_broker(tmp_path) as broker:
        quotas = "producer_byte_rate=100000,consumer_byte_rate=100000"
        command = ["--alter", "--entity-type", "clients", "--entity-name", "slow", "--add-config", quotas]
        broker.run_tool("kafka.admin.ConfigCommand", "--bootstrap-server", broker.bootstrap, *command)
        kafka_place, log, bodies = KafkaPlace(broker), Log(), [body * 10_000 for body in numbered(90, 10)]
        kafka_place.settings = {"client.id": "slow"}
        began = time.monotonic()
        sender = KafkaSender(broker.bootstrap, kafka_place.topic, settings=kafka_place.settings)
        for first in range(0, 90, 10):
            sender.send(bodies[first : first + 10], spread(10))
        sender.close()
        sent = time.monotonic()
        worker = Worker(kafka_place, log)
        poll_until([worker], log.has(90))
        read = time.monotonic()
        assert log.in_any_order() == sorted(bodies)
        assert min(sent - began, read - sent) > 1.0
        end(worker)
