"""The contract of every sink of decisions (infra/ingest/decisions/outbox.py): one suite over real receivers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from plugins.decisions.tests.decided import KEYS, STREAM, T_US, append_decisions, decision_id
from plugins.decisions.tests.sinks import (
    Faulty,
    KafkaSinkKind,
    KinesisSinkKind,
    ParquetSinkKind,
    RedisSinkKind,
    SinkKind,
    SinkWorld,
    Stored,
    WebhookSinkKind,
)
from skewless.contract.decisions import DecisionStream
from skewless.contract.errors import ConflictError
from skewless.contract.settings import Settings
from skewless.contract.sinks import KafkaSink
from skewless.infra.log.compaction import compact
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.records.predictions.segments import PREDICTIONS
from skewless_decisions.decision import find_decisions
from skewless_decisions.deliveries import read_sinks
from skewless_decisions.delivery import Pauses
from skewless_decisions.outbox import DecisionBatch, DecisionSink
from skewless_decisions.sink_positions import Refusal
from tests.servers.aws import running_aws
from tests.servers.kafka import KafkaBroker
from tests.servers.node import Node
from tests.servers.webhook import webhook_receiver
from tests.worlds.waiting import until

KINDS = ("kafka", "kinesis", "redis", "webhook", "parquet")


@pytest.fixture(params=KINDS)
def sink_world(request: pytest.FixtureRequest, tmp_path: Path, valkey: Node) -> Iterator[SinkWorld]:
    if request.param == "webhook":
        with webhook_receiver() as receiver:
            yield SinkWorld(tmp_path, WebhookSinkKind(receiver), valkey.url)
        return
    if request.param == "kinesis":
        with running_aws(tmp_path) as server, pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL_KINESIS", server.endpoint)
            yield SinkWorld(tmp_path, KinesisSinkKind(server), valkey.url)
        return
    kind: SinkKind
    if request.param == "kafka":
        kind = KafkaSinkKind(request.getfixturevalue("kafka"))
    else:
        kind = RedisSinkKind(valkey) if request.param == "redis" else ParquetSinkKind(tmp_path)
    yield SinkWorld(tmp_path, kind, valkey.url)


def assert_delivered(stored: Sequence[Stored], positions: Sequence[int]) -> None:
    """Check that each decision came, those of a key in order at first, and a repeated one with the same bytes."""
    messages: dict[str, object] = {}
    for name, message in stored:
        assert messages.setdefault(name, message) == message
    assert set(messages) == {decision_id(position) for position in positions}
    order = {decision_id(position): position for position in positions}
    for key in range(KEYS):
        firsts = [order[name] for name in messages if order[name] % KEYS == key]
        assert firsts == sorted(firsts)


def test_every_decision_is_delivered_in_the_order_of_its_key(sink_world: SinkWorld) -> None:
    delivery = sink_world.delivery()
    append_decisions(sink_world.state, range(1_000, 1_010), stream=None)  # requested
    append_decisions(sink_world.state, range(120))
    append_decisions(sink_world.state, range(2_000, 2_010), role="shadow")
    append_decisions(sink_world.state, range(3_000, 3_010), stream="other")
    delivery.start()
    append_decisions(sink_world.state, range(120, 130))
    until(sink_world.has_delivered(130))
    delivery.stop()
    assert len(sink_world.kind.stored()) == 130
    assert_delivered(sink_world.kind.stored(), range(130))
    stream = DecisionStream(name=STREAM, model="fraud", source="payments", sinks=(sink_world.sink,))
    (status,) = read_sinks(sink_world.state, [stream], T_US)
    assert (status.waiting, status.delivered, status.refused, status.process) == (0, 130, 0, None)
    assert (delivery.counts.delivered, delivery.counts.trouble) == (130, None)


def test_decisions_that_were_just_appended_are_delivered_once(sink_world: SinkWorld) -> None:
    delivery = sink_world.delivery()
    delivery.start()
    until(lambda: delivery.counts.is_owner)
    for start in range(0, 60, 20):
        append_decisions(sink_world.state, [1_000 + start], stream=None)
        segment, rows = append_decisions(sink_world.state, range(start, start + 20))
        found = find_decisions(rows, {STREAM})
        delivery.offer(
            DecisionBatch(
                first=segment.first,
                last=segment.last,
                positions=[segment.first + offset for offset, _ in found],
                decisions=[decision for _, decision in found],
            )
        )
    until(sink_world.has_delivered(60))
    delivery.stop()
    assert len(sink_world.kind.stored()) == 60
    assert_delivered(sink_world.kind.stored(), range(60))


@pytest.mark.parametrize("fault", ["before", "half", "after"])
def test_a_delivery_that_fails_is_repeated_with_the_same_bytes(sink_world: SinkWorld, fault: str) -> None:
    delivery = sink_world.delivery(lambda adapter: Faulty(adapter, [fault]))
    append_decisions(sink_world.state, range(80))
    delivery.start()
    until(sink_world.has_delivered(80))
    delivery.stop()
    assert delivery.counts.retries == 1
    assert_delivered(sink_world.kind.stored(), range(80))


class ProcessEnd(BaseException):
    """The process ends."""


class Mortal:
    """A sink whose process ends behind its first delivery, before it is confirmed."""

    retry_after_s: float | None = None

    def __init__(self, adapter: DecisionSink) -> None:
        self._adapter = adapter

    def send(self, batch: DecisionBatch) -> Sequence[Refusal]:
        self._adapter.send(batch)
        raise ProcessEnd

    def close(self) -> None:
        self._adapter.close()


def test_a_restart_sends_again_what_was_not_confirmed(sink_world: SinkWorld) -> None:
    delivery = sink_world.delivery(Mortal)
    append_decisions(sink_world.state, range(30))
    with pytest.raises(ProcessEnd):
        delivery._run()
    delivery = sink_world.delivery()
    append_decisions(sink_world.state, range(30, 70))
    delivery.start()
    until(sink_world.has_delivered(70))
    delivery.stop()
    stored = sink_world.kind.stored()
    assert len(stored) == (70 if sink_world.sink.kind == "parquet" else 100)  # a file that is written again is the same
    assert_delivered(stored, range(70))


def test_a_process_that_lost_the_sink_confirms_nothing(sink_world: SinkWorld) -> None:
    stolen: list[int] = []

    class Thief(Mortal):
        def send(self, batch: DecisionBatch) -> Sequence[Refusal]:
            self._adapter.send(batch)
            sink_world.state.database.execute(
                "UPDATE leases SET token = token + 1, holder = 'h/m/1/a' WHERE name = 'sink out'"
            )
            stolen.append(batch.last)
            return ()

    first = sink_world.delivery(Thief)
    append_decisions(sink_world.state, range(20))
    before = sink_world.positions.read("out")
    with pytest.raises(ConflictError, match="was lost to"):
        first._hold_lease(Pauses())
    assert stolen
    after = sink_world.positions.read("out")
    assert before is not None
    assert after is not None
    assert after.next == before.next


def test_decisions_wait_in_the_log_while_nobody_delivers(sink_world: SinkWorld) -> None:
    sink_world.delivery()  # begins the sink
    for start in range(0, 90, 30):
        append_decisions(sink_world.state, range(start, start + 30))
    compact(PartitionLog(sink_world.state, PREDICTIONS), keep=0, group=lambda _: "all")
    delivery = sink_world.delivery()
    assert delivery.count_waiting() == 90
    delivery.start()
    until(sink_world.has_delivered(90))
    delivery.stop()
    assert_delivered(sink_world.kind.stored(), range(90))


def test_two_processes_deliver_each_decision_once(sink_world: SinkWorld) -> None:
    deliveries = [sink_world.delivery() for _ in range(2)]
    for delivery in deliveries:
        delivery.start()
    for start in range(0, 100, 10):
        append_decisions(sink_world.state, range(start, start + 10))
        time.sleep(0.01)
    until(sink_world.has_delivered(100))
    assert sum(delivery.counts.is_owner for delivery in deliveries) == 1
    owner = next(delivery for delivery in deliveries if delivery.counts.is_owner)
    owner.stop()
    append_decisions(sink_world.state, range(100, 110))
    until(sink_world.has_delivered(110))
    for delivery in deliveries:
        delivery.stop()
    assert len(sink_world.kind.stored()) == 110
    assert_delivered(sink_world.kind.stored(), range(110))


@pytest.mark.parametrize("sink_world", ["kafka", "kinesis", "webhook"], indirect=True)
def test_a_decision_that_the_sink_refuses_is_a_dead_letter_and_stops_no_other(sink_world: SinkWorld) -> None:
    sink_world.kind.refuse(20)
    delivery = sink_world.delivery()
    append_decisions(sink_world.state, range(20))
    append_decisions(sink_world.state, [20], note="x" * 1_100_000)
    append_decisions(sink_world.state, range(21, 40))
    delivery.start()
    until(sink_world.has_delivered(40))
    delivery.stop()
    assert_delivered(sink_world.kind.stored(), [*range(20), *range(21, 40)])
    (letter,) = sink_world.positions.dead_letters("out")
    assert (letter.id, letter.position) == (decision_id(20), 20)
    assert letter.reason in {
        "the receiver answered with status 422",
        "Kafka refuses the message: MSG_SIZE_TOO_LARGE",
        "Kinesis refuses the message: ValidationException",
    }
    assert (delivery.counts.delivered, delivery.counts.refused) == (39, 1)


def test_a_batch_that_the_broker_refuses_is_sent_again_before_later_decisions(
    tmp_path: Path, kafka: KafkaBroker, valkey: Node
) -> None:
    """The broker takes less than the client, which sends 50 decisions in several batches."""
    sink_world = SinkWorld(tmp_path, KafkaSinkKind(kafka, most_bytes=400_000), valkey.url)
    delivery = sink_world.delivery()
    append_decisions(sink_world.state, range(20), note="x" * 30_000)
    append_decisions(sink_world.state, [20], note="x" * 450_000)
    append_decisions(sink_world.state, range(21, 100), note="x" * 30_000)
    delivery.start()
    until(sink_world.has_delivered(100))
    delivery.stop()
    assert_delivered(sink_world.kind.stored(), [*range(20), *range(21, 100)])
    assert [letter.position for letter in sink_world.positions.dead_letters("out")] == [20]


def test_kafka_gets_nothing_while_a_broker_advertises_a_host_that_is_not_allowed(
    tmp_path: Path, kafka: KafkaBroker, valkey: Node
) -> None:
    kind = KafkaSinkKind(kafka)
    port = kafka.bootstrap.rpartition(":")[2]
    kind.sink = KafkaSink(**{**vars(kind.sink), "servers": f"localhost:{port}"})
    refusing = SinkWorld(tmp_path, kind, valkey.url, Settings(sink_hosts=("localhost",)))
    delivery = refusing.delivery()
    append_decisions(refusing.state, range(5))
    delivery.start()
    until(lambda: delivery.counts.retries >= 2)
    delivery.stop()
    assert delivery.counts.trouble == (
        "sink 'out': has brokers that advertise a host that is not allowed (got '127.0.0.1'). "
        "Fix: add the host to the setting 'sink_hosts', or deliver to another one"
    )
    assert kind.stored() == []
    allowing = SinkWorld(tmp_path, kind, valkey.url, Settings(sink_hosts=("localhost", "127.0.0.0/8")))
    delivery = allowing.delivery()
    delivery.start()
    until(allowing.has_delivered(5))
    delivery.stop()
    assert_delivered(kind.stored(), range(5))
