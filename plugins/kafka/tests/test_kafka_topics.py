"""Topics and brokers of Kafka as others set them up: transactions, compaction, more partitions, codecs, passwords."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]  # it does not list it

from skewless.contract.errors import StoreError
from skewless_kafka.client import KafkaSender
from tests.contract.streams import KafkaPlace, Log, N, Worker, numbered, poll_until, send, spread
from tests.servers.kafka import KafkaBroker, kafka_broker
from tests.worlds.waiting import eventually

_ALLOWS_10_MB = {"message.max.bytes": 10_000_100}


@pytest.fixture
def kafka_place(kafka: KafkaBroker) -> KafkaPlace:
    return KafkaPlace(kafka)


def producer_of(place: KafkaPlace, settings: Mapping[str, str] | None = None) -> Producer:
    return Producer({"bootstrap.servers": place.broker.bootstrap, **(settings or {})})


def test_messages_of_an_aborted_transaction_are_never_read(kafka_place: KafkaPlace) -> None:
    producer, log = producer_of(kafka_place, {"transactional.id": kafka_place.topic}), Log()
    worker = Worker(kafka_place, log)
    poll_until([worker], lambda: len(worker.owned) == N)
    producer.init_transactions(10)
    for first in range(0, 100, 10):
        producer.begin_transaction()
        for body in numbered(10, first):
            producer.produce(kafka_place.topic, body, partition=first // 10 % N)
        producer.flush(10)
        worker.poll()  # the transaction is open
        if first % 20:
            producer.abort_transaction(10)
        else:
            producer.commit_transaction(10)
    committed = [body for first in range(0, 100, 20) for body in numbered(10, first)]
    poll_until([worker], log.has(len(committed)))
    poll_until([worker], lambda: worker.all_drained and worker.stream.lag() == 0)
    log.assert_in_order()
    assert log.in_any_order() == sorted(committed)
    worker.stream.close()


@pytest.mark.soak
def test_a_compacted_topic_is_read_with_its_gaps_and_its_deletions(kafka: KafkaBroker) -> None:
    kafka_place = KafkaPlace(kafka)
    kafka_place.broker.delete(kafka_place.topic)
    compaction = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    kafka_place.broker.make(
        kafka_place.topic, N, config={**compaction, "max.compaction.lag.ms": "100", "delete.retention.ms": "600000"}
    )
    producer = producer_of(kafka_place)

    def count_stored() -> int:
        """Write once more to the last key, which ends a segment, and return how many messages are left."""
        producer.produce(kafka_place.topic, b"last", key=b"last", partition=0)
        producer.flush(10)
        return len(kafka_place.broker.read(kafka_place.topic)[0])

    for number in range(300):
        producer.produce(kafka_place.topic, b"%d" % number, key=b"k%d" % (number % 3), partition=0)
    producer.produce(kafka_place.topic, None, key=b"k0", partition=0)
    producer.flush(10)
    eventually(count_stored, lambda stored: stored < 100)
    stored = kafka_place.broker.read(kafka_place.topic)[0]
    log = Log()
    worker = Worker(kafka_place, log)
    poll_until([worker], log.has(len(stored)))
    log.assert_in_order()
    assert [payload or b"" for payload in log.payloads()] == stored
    assert log.payloads()[:3] == [b"298", b"299", None]
    poll_until([worker], lambda: worker.all_drained)
    worker.stream.close()


def test_partitions_that_are_added_are_read_from_their_first_message(kafka_place: KafkaPlace) -> None:
    log = Log()
    worker = Worker(kafka_place, log)
    send(kafka_place, numbered(40), spread(40))
    poll_until([worker], log.has(40))
    admin = kafka_place.broker.admin()
    admin.create_partitions([NewPartitions(kafka_place.topic, N + 2)])[kafka_place.topic].result(10)
    producer = producer_of(kafka_place)
    for index in range(N + 2):
        producer.produce(kafka_place.topic, b"%d" % (40 + index), partition=index)
    producer.flush(10)
    poll_until([worker], log.has(40 + N + 2))
    assert log.in_any_order() == sorted(numbered(40 + N + 2))
    assert {partition.name for partition in worker.owned} == {str(index) for index in range(N + 2)}
    worker.stream.close()


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_is_read_and_sent(kafka_place: KafkaPlace, codec: str) -> None:
    bodies = [body * 100 for body in numbered(200)]
    producer = producer_of(kafka_place, {"compression.type": codec})
    for body in bodies[:100]:
        producer.produce(kafka_place.topic, body)
    producer.flush(10)
    sender = KafkaSender(kafka_place.broker.bootstrap, kafka_place.topic, settings={"compression.type": codec})
    sender.send(bodies[100:])
    sender.close()
    log = Log()
    worker = Worker(kafka_place, log)
    poll_until([worker], log.has(200))
    assert log.in_any_order() == sorted(bodies)
    worker.stream.close()


def send_10_mb(place: KafkaPlace) -> bytes:
    """Send a message of 10 MB to a new topic that allows it; return the message."""
    body = b"x" * 10_000_000
    place.topic += "-large"
    place.broker.make(place.topic, 1, most_bytes=10_000_100)
    sender = KafkaSender(place.broker.bootstrap, place.topic, settings=_ALLOWS_10_MB)
    sender.send([body])
    sender.close()
    return body


def test_a_message_of_10_mb_is_named_until_client_and_topic_allow_it(kafka_place: KafkaPlace) -> None:
    for settings in ({}, _ALLOWS_10_MB):
        sender = KafkaSender(kafka_place.broker.bootstrap, kafka_place.topic, settings=settings)
        with pytest.raises(StoreError, match="too large") as caught:
            sender.send([b"x" * 10_000_000])
        sender.close()
        assert caught.value.value == "MSG_SIZE_TOO_LARGE"
    body = send_10_mb(kafka_place)
    log = Log()
    worker = Worker(kafka_place, log)
    poll_until([worker], log.payloads)
    assert log.payloads() == [body]
    worker.stream.close()


def test_a_message_that_the_client_must_not_receive_is_named_until_it_may(kafka_place: KafkaPlace) -> None:
    body, log = send_10_mb(kafka_place), Log()
    kafka_place.settings = {"receive.message.max.bytes": "9000000", "fetch.max.bytes": "8000000"}
    worker, troubles = Worker(kafka_place, log), list[str]()

    def look() -> bool:
        troubles.extend([worker.stream.trouble] if worker.stream.trouble else [])
        return len(troubles) > 50

    poll_until([worker], look)
    problem = (
        r"sends 10000\d{3} bytes, more than the client's receive.message.max.bytes: raise it in the setting 'kafka'"
    )
    assert all(re.fullmatch(f"Kafka topic {kafka_place.topic!r}: {problem}", trouble) for trouble in troubles), troubles
    worker.stream.close()
    assert not log.payloads()
    kafka_place.settings = {}
    worker = Worker(kafka_place, log)
    poll_until([worker], log.payloads)
    assert (log.payloads(), worker.stream.trouble) == ([body], None)
    worker.stream.close()


_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_PASSWORDS = f"""
listeners=SASL_PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}}
listener.security.protocol.map=SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
security.inter.broker.protocol=SASL_PLAINTEXT
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config={_LOGIN} required username="admin" password="a" \\
  user_admin="a" user_guest="g";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin;User:ANONYMOUS
"""


def login(user: str, password: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": password,
    }


@pytest.mark.soak
def test_a_wrong_password_and_a_user_without_rights_are_named(tmp_path: Path) -> None:
    admin = login("admin", "a")
    no_topic = "TOPIC_AUTHORIZATION_FAILED"
    refusals = {
        ("admin", "wrong"): ({"_AUTHENTICATION"}, "_TIMED_OUT"),
        # The group and the topic are asked for at once.
        ("guest", "g"): ({"GROUP_AUTHORIZATION_FAILED", no_topic}, no_topic),
    }
    with kafka_broker(tmp_path, properties=_PASSWORDS, client=admin) as broker:
        kafka_place = KafkaPlace(broker)
        for user, (of_group, of_topic) in refusals.items():
            kafka_place.settings = login(*user)
            worker = Worker(kafka_place, Log())
            with pytest.raises(StoreError, match="correct the address, the permissions") as of_worker:
                poll_until([worker], lambda: False)
            worker.stream.close()
            with pytest.raises(StoreError, match="correct the address, the permissions") as of_sender:
                send(kafka_place, numbered(1))
            assert of_worker.value.value in of_group
            assert of_sender.value.value == of_topic
        kafka_place.settings, log = admin, Log()
        send(kafka_place, numbered(20), spread(20))
        worker = Worker(kafka_place, log)
        poll_until([worker], log.has(20))
        worker.stream.close()
    assert log.in_any_order() == sorted(numbered(20))
