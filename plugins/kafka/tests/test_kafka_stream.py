"""Kafka behaviour in addition to the contract of all streams."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from skewless.contract.errors import DefinitionError, StoreError
from skewless.infra.ingest.streams.port import Partition
from skewless_kafka.client import OUT_OF_RANGE, KafkaSender, TopicMonitor
from skewless_kafka.stream import KafkaStream, _KafkaProgress
from tests.contract.streams import QUICK, KafkaPlace, Log, N, Worker, numbered, poll_until, spread
from tests.servers.kafka import KafkaBroker, kafka_broker, named_broker
from tests.worlds.waiting import eventually

NOWHERE = "127.0.0.1:1"


class Reader:
    """Reads from a position on, and logs nothing."""

    def __init__(self, position: int | None = None) -> None:
        self.position = position

    def on_assigned(self, _: Partition) -> int | None:
        return self.position

    def on_revoked(self, _: Partition) -> None:
        return None

    def on_stepped_back(self, _: Partition, last: str, first: int) -> set[int]:
        raise AssertionError((last, first))


@pytest.fixture
def kafka_place(kafka: KafkaBroker) -> KafkaPlace:
    return KafkaPlace(kafka)


def send(kafka_place: KafkaPlace, payloads: list[bytes]) -> None:
    sender = kafka_place.sender()
    sender.send(payloads, spread(len(payloads)))
    sender.close()


def test_1_4_another_topic_id_is_another_life(kafka_place: KafkaPlace) -> None:
    log = Log()
    send(kafka_place, numbered(200))
    worker = Worker(kafka_place, log)
    poll_until([worker], log.has(200))
    old = worker.owned
    assert len({partition.epoch for partition in old}) == 1
    kafka_place.recreate()
    send(kafka_place, numbered(30, 200))
    poll_until([worker], log.has(230))
    assert set(worker.revocations) == old
    assert not worker.owned & old
    new = [int(payload or b"") for partition in worker.owned for _, payload in log.read[partition]]
    assert sorted(new) == list(range(200, 230))
    assert all("/" not in partition.epoch for partition in worker.owned)
    worker.stream.close()


def test_a_recreated_topic_is_described_until_one_reply_and_no_request_replaces_it(kafka_place: KafkaPlace) -> None:
    """Replaced at each poll, the reply was read only by luck: the worker read nothing for minutes."""
    reader, topic = Reader(), kafka_place.topic
    stream = kafka_place.stream(reader, "g")
    monitor = stream._monitor = Counting(topic, stream._monitor._admin)
    stream._client_id = "of-now"
    stream._owned[0] = _KafkaProgress(Partition(name="0", epoch="of-before"), None)
    for _ in range(100):
        stream.poll(1_000, 0.0)
    assert monitor.n_requests <= 2  # that of the start, and one for the pause
    stream.close()


class Counting(TopicMonitor):
    """Counts requests; the broker never replies."""

    n_requests = 0

    def request(self) -> None:
        self.n_requests += 1
        self._next_request = float("inf")


def test_an_offset_that_is_gone_is_said_aloud_and_reading_goes_on_with_the_oldest(kafka_place: KafkaPlace) -> None:
    send(kafka_place, numbered(100))
    stream = kafka_place.stream(Reader(1_000), "g")
    with capture_logs() as logs:
        seen, troubles = set[bytes | None](), set[str]()
        while len(seen) < 100:
            for messages in stream.poll(1_000, 0.1):
                seen |= set(messages.payloads)
            troubles |= {stream.trouble or ""}
    assert seen == set(numbered(100))
    assert any("was to be read from 1000" in trouble for trouble in troubles)
    gone = [entry for entry in logs if entry["event"] == "stream_positions_lost"]
    assert {entry["partition"] for entry in gone} == {str(index) for index in range(N)}
    assert all(entry["log_level"] == "error" and entry["oldest"] == 0 for entry in gone)
    stream.close()


class Repeating:
    """Returns the errors of lost positions again before the first messages: a fetch from there was still on its way."""

    def __init__(self, consumer: Any) -> None:  # noqa: ANN401 - librdkafka's, which has no types
        self.consumer, self.errors = consumer, list[Any]()

    def consume(self, limit: int, wait_s: float) -> list[Any]:
        found: list[Any] = self.consumer.consume(limit, wait_s)
        lost = [one for one in found if one.error() and one.error().code() in OUT_OF_RANGE]
        again, self.errors = (self.errors, lost) if len(lost) < len(found) else ([], self.errors + lost)
        return again + found

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        return getattr(self.consumer, name)


def test_a_second_error_of_the_lost_position_loses_nothing_again(
    kafka_place: KafkaPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(kafka_place, numbered(100))
    stream = kafka_place.stream(Reader(1_000), "g")
    monkeypatch.setattr(stream, "_consumer", Repeating(stream._consumer))
    with capture_logs() as logs:
        read = list[bytes | None]()
        while len(read) < 100:
            read += [payload for messages in stream.poll(1_000, 0.1) for payload in messages.payloads]
        assert stream.poll(1_000, 0.5) == []
    assert (len(read), set(read)) == (100, set(numbered(100)))
    gone = [entry["position"] for entry in logs if entry["event"] == "stream_positions_lost"]
    assert gone == [1_000] * N
    stream.close()


def test_a_position_at_the_end_is_no_trouble(kafka_place: KafkaPlace) -> None:
    stream = kafka_place.stream(Reader(0), "g")
    assert eventually(lambda: (stream.poll(10, 0.1), stream.lag()), lambda seen: seen[1] is not None) == ([], 0)
    assert stream.trouble is None
    stream.close()


LATE_S = 2.0  # what the client knows of the broker may be so old


def poll_for(worker: Worker, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        worker.poll()


def test_8_4_a_topic_whose_messages_have_all_expired_is_drained(kafka_place: KafkaPlace) -> None:
    send(kafka_place, numbered(100))
    ends = Consumer({"bootstrap.servers": kafka_place.broker.bootstrap, "group.id": "ends"})
    parts = [TopicPartition(kafka_place.topic, index) for index in range(N)]
    for part in parts:
        part.offset = ends.get_watermark_offsets(part, timeout=10)[1]
    ends.close()
    admin = AdminClient({"bootstrap.servers": kafka_place.broker.bootstrap})
    for answer in admin.delete_records(parts).values():
        answer.result(10)
    worker = Worker(kafka_place, Log())
    poll_until([worker], lambda: len(worker.owned) == N)
    poll_for(worker, LATE_S)
    drained, lag = worker.all_drained, worker.stream.lag()
    worker.stream.close()
    assert lag == 0
    assert drained


def test_8_4_the_end_of_a_transaction_does_not_keep_a_partition_from_being_drained(kafka_place: KafkaPlace) -> None:
    producer = Producer({"bootstrap.servers": kafka_place.broker.bootstrap, "transactional.id": kafka_place.topic})
    producer.init_transactions(10)
    producer.begin_transaction()
    for body in numbered(20):
        producer.produce(kafka_place.topic, body)
    producer.commit_transaction(10)
    log = Log()
    worker = Worker(kafka_place, log)
    poll_until([worker], log.has(20))
    poll_for(worker, LATE_S)
    drained, lag = worker.all_drained, worker.stream.lag()
    worker.stream.close()
    assert lag == 0
    assert drained


def test_8_4_of_a_broker_that_hangs_nothing_is_drained(tmp_path: Path) -> None:
    """The broker may still take messages from others where only the way to it is cut."""
    if named_broker():
        pytest.skip("a broker that the tests did not start is not stopped")
    with kafka_broker(tmp_path) as broker:
        kafka_place, log = KafkaPlace(broker), Log()
        worker = Worker(kafka_place, log)
        send(kafka_place, numbered(20))
        poll_until([worker], lambda: len(log.payloads()) == 20 and worker.all_drained)
        broker.freeze()
        try:
            poll_for(worker, LATE_S)
            drained = worker.stream.find_drained()
        finally:
            broker.thaw()
        poll_until([worker], lambda: worker.all_drained)
        worker.stream.close()
    assert list(drained) == []


def test_a_topic_that_is_not_there_is_waited_for(kafka_place: KafkaPlace) -> None:
    kafka_place.broker.delete(kafka_place.topic)
    log = Log()
    worker = Worker(kafka_place, log)
    poll_until([worker], lambda: worker.stream.trouble)
    kafka_place.broker.make(kafka_place.topic, N)
    send(kafka_place, numbered(20))
    poll_until([worker], log.has(20))
    assert worker.stream.trouble is None
    worker.stream.close()


def test_a_broker_that_never_was_there_is_waited_for() -> None:
    stream = KafkaStream(NOWHERE, "t", owner=Reader(), settings=QUICK)
    while not stream.trouble:
        assert stream.poll(10, 0.1) == []
    assert stream.lag() == 0
    stream.commit({Partition(name="0", epoch="t0"): 1})
    stream.close()


def test_a_sender_without_a_broker_says_so() -> None:
    sender = KafkaSender(NOWHERE, "t", timeout_s=0.5)
    with pytest.raises(StoreError, match="Kafka topic 't'"):
        sender.send([b"x"])
    sender.close()


@pytest.mark.parametrize(
    "away_s", [0.1, *(pytest.param(each, marks=pytest.mark.soak) for each in (0.2, 0.35, 0.5, 1.0, 1.25, 1.5, 1.75))]
)
def test_what_a_broker_takes_only_in_part_keeps_its_order(tmp_path: Path, away_s: float) -> None:
    """A broker hangs until some time after the sender has given up, and perhaps has begun again."""
    count, timeout_s = 12_000, 2.0
    with kafka_broker(tmp_path) as broker, ThreadPoolExecutor(1) as pool:
        broker.make("t", 1)
        sender = KafkaSender(broker.bootstrap, "t", timeout_s=timeout_s)
        eventually(partial(was_sent, sender, [b"0"]), bool)

        def come_back() -> None:
            time.sleep(timeout_s + away_s)
            broker.thaw()

        broker.freeze()
        pool.submit(come_back)
        eventually(partial(was_sent, sender, [b"%d" % number for number in range(1, count)]), bool)
        sender.close()
        (received,) = broker.read("t")
    assert list(dict.fromkeys(map(int, received))) == list(range(count))


@pytest.mark.parametrize(
    ("most_bytes", "sizes"),
    [
        pytest.param(900_000, [1_000] * 2_500, id="the last batch is smaller"),
        pytest.param(2_000, [10] * 5 + [3_000] + [10] * 20_000, id="one message is too large"),
    ],
)
def test_of_messages_after_a_batch_that_the_broker_refuses_none_is_stored(
    kafka_place: KafkaPlace, most_bytes: int, sizes: list[int]
) -> None:
    """The topic's limit is below the client's."""
    topic = f"{kafka_place.topic}-small"
    kafka_place.broker.make(topic, 1, most_bytes=most_bytes)
    sender = KafkaSender(kafka_place.broker.bootstrap, topic)
    payloads = [(b"%d " % number).ljust(size, b".") for number, size in enumerate(sizes)]
    with capture_logs() as logs, pytest.raises(StoreError, match="too large") as caught:
        sender.send(payloads, ["k"] * len(payloads))
    assert caught.value.value == "MSG_SIZE_TOO_LARGE"
    (stored,) = kafka_place.broker.read(topic)
    assert stored == payloads[: len(stored)]
    sender.send([b"next"], ["k"])
    sender.close()
    assert kafka_place.broker.read(topic) == [[*stored, b"next"]]
    assert not [entry for entry in logs if "experimental" in entry["line"]]


def test_a_sender_whose_client_has_ended_says_so_and_goes_on(kafka_place: KafkaPlace) -> None:
    """The client ends where the topic was deleted: a new one does not know the numbers of its messages."""
    sender = KafkaSender(kafka_place.broker.bootstrap, kafka_place.topic, timeout_s=2.0)
    sender.send([b"0"], ["k"])
    kafka_place.broker.delete(kafka_place.topic)
    with pytest.raises(StoreError, match="was rejected"):
        sender.send([b"1"], ["k"])
    kafka_place.broker.make(kafka_place.topic, N)
    eventually(partial(was_sent, sender, [b"2"]), bool)
    sender.close()


def was_sent(sender: KafkaSender, payloads: list[bytes]) -> bool:
    try:
        sender.send(payloads, ["k"] * len(payloads))
    except StoreError:
        return False
    return True


def test_what_the_broker_forbids_is_an_error(kafka_place: KafkaPlace) -> None:
    stream = kafka_place.stream(Reader(), "g")
    stream._handle_error(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    with pytest.raises(StoreError, match="TOPIC_AUTHORIZATION_FAILED"):
        stream.poll(1, 0.0)
    stream.close()


def test_settings_that_are_ours_are_not_taken() -> None:
    with pytest.raises(DefinitionError, match=r"auto\.offset\.reset"):
        KafkaStream(NOWHERE, "t", owner=Reader(), settings={"auto.offset.reset": "latest"})
    with pytest.raises(DefinitionError, match="acks"):
        KafkaSender(NOWHERE, "t", settings={"acks": 0})


@pytest.mark.parametrize("settings", [{"no.such": "hush"}, {"security.protocol": "hush"}])
def test_settings_that_the_client_refuses_are_named_without_their_values(settings: dict[str, str]) -> None:
    for make in (
        lambda: KafkaStream(NOWHERE, "t", owner=Reader(), settings=settings),
        lambda: KafkaSender(NOWHERE, "t", settings=settings),
    ):
        with pytest.raises(DefinitionError, match="are invalid") as caught:
            make()
        assert "hush" not in str(caught.value)
