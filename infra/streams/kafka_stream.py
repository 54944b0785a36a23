"""Reads events from a Kafka topic, shared among the workers of a consumer group."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from skewless.infra.streams.kafka_client import (
    END_OF_PARTITION,
    GONE,
    OUT_OF_RANGE,
    AdminClient,
    admin_settings,
    consumer_settings,
    is_final,
    kafka,
    made_with,
    refused,
)
from skewless.infra.streams.kafka_topic import TopicEnds, TopicMonitor
from skewless.infra.streams.port import Messages, Partition, RebalanceListener

_SLICE_S = 0.1
_WATERMARKS_S = 2.0
_log = structlog.get_logger(__name__)


@dataclass
class _KafkaReading:
    """The progress in an owned partition.

    Args:
        partition: name and epoch.
        following: the next position; None: the oldest one.
        lost: the next position does not exist any more.
        ended: position at which the client last reached the end; transaction markers may lie before it.
    """

    partition: Partition
    following: int | None
    lost: bool = False
    ended: int = 0

    @property
    def position(self) -> int:
        """Position up to which everything has been read."""
        return max(self.following or 0, self.ended)


class KafkaStream:
    """Implements ``EventStream``. A position is an offset; the epoch of a partition is the id of the topic.

    The id is requested at each assignment, when the topic or an offset is missing, and every five seconds. If a topic
    is deleted, recreated and filled beyond the old offsets faster than the client notices, that is the delay.

    Args:
        bootstrap: first brokers to contact, ``HOST:PORT,HOST:PORT``.
        topic: may be created later.
        owner: notified of assigned and revoked partitions.
        group: the consumer group of the workers.
        settings: of librdkafka, for example for TLS and passwords; never logged.

    Raises:
        DefinitionError: the settings are invalid.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        owner: RebalanceListener,
        group: str = "skewless",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._topic = topic
        self._owner = owner
        self._owned: dict[int, _KafkaReading] = {}
        self._pending: list[int] = []
        self._held = False
        self._flowing = False
        self._refused: kafka.KafkaError | None = None
        self._trouble: str | None = None  # the last error of the broker
        self._loss: str | None = None  # lost positions; a reply of the broker does not clear it
        self._names: tuple[str, ...] | None = None
        callbacks = {"error_cb": self._heard, "on_commit": _committed}
        with made_with(topic):
            self._consumer = kafka.Consumer({**consumer_settings(bootstrap, group, settings or {}), **callbacks})
            admin = AdminClient(admin_settings(bootstrap, settings or {}))
            self._watch, self._ends = TopicMonitor(topic, admin), TopicEnds(topic, admin)
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)

    @property
    def trouble(self) -> str | None:
        """The current problem; see ``EventStream``."""
        return self._loss or self._trouble

    def poll(self, limit: int, timeout_s: float) -> list[Messages]:
        """Return messages; see ``EventStream``."""
        deadline = time.monotonic() + timeout_s
        if self._flowing:  # the loss was visible since the last messages were returned
            self._loss = self._trouble = None
        while True:
            left = deadline - time.monotonic()
            found = self._consumed(limit, max(0.0, min(left, _SLICE_S)))
            self._settle()
            self._ends.look(self._owned)
            messages = self._grouped(found)
            if messages or left <= 0:
                self._flowing = bool(messages)
                return messages

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Commit positions; see ``EventStream``. Returns before the broker has them."""
        mine = {reading.partition for reading in self._owned.values()}
        offsets = [
            kafka.TopicPartition(self._topic, int(partition.name), at)
            for partition, at in positions.items()
            if partition in mine
        ]
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except kafka.KafkaException as error:
            self._heard(error.args[0])

    def lag(self) -> int | None:
        """Return the lag; see ``EventStream``. From the last fetches, and too high for a compacted topic."""
        total = 0
        for index, reading in self._owned.items():
            low, high = self._consumer.get_watermark_offsets(kafka.TopicPartition(self._topic, index), cached=True)
            if high < 0:
                return None
            total += max(0, high - max(0 if reading.following is None else reading.position, low, 0))
        return total

    def drained(self) -> Mapping[Partition, float]:
        """Return drained partitions; see ``EventStream``. From replies within the last two seconds."""
        ages = {reading.partition: self._ends.age_s(index, reading.position) for index, reading in self._owned.items()}
        return {} if self.trouble else {partition: age for partition, age in ages.items() if age is not None}

    def names(self) -> Collection[str] | None:
        """Return partition names; see ``EventStream``. From a reply a few seconds ago."""
        return self._names

    def close(self) -> None:
        """Leave the group; see ``EventStream``."""
        self._consumer.close()
        self._let_go(list(self._owned))

    def _consumed(self, limit: int, wait_s: float) -> list[kafka.Message]:
        """Return available messages, or wait for the first; the client's own wait would be for all of them."""
        found = self._consumer.consume(limit, 0)
        if not found and wait_s:
            found = self._consumer.consume(1, wait_s)
            found += self._consumer.consume(limit - 1, 0) if found and limit > 1 else []
        if self._refused:
            raise refused(self._topic, self._refused)
        return found

    def _grouped(self, found: Iterable[Any]) -> list[Messages]:
        groups: dict[int, tuple[list[int], list[bytes | None]]] = {}
        last, positions, payloads = -1, list[int](), list[bytes | None]()
        for message in found:
            error = message.error()
            if error is not None:
                if error.code() == END_OF_PARTITION:
                    if message.partition() in self._owned:
                        self._owned[message.partition()].ended = message.offset()
                else:
                    self._failed(message.partition(), error)
                continue
            index = message.partition()
            if index != last:
                last, (positions, payloads) = index, groups.setdefault(index, ([], []))
            positions.append(message.offset())
            payloads.append(message.value())
        return [self._messages(index, *groups[index]) for index in groups if index in self._owned]

    def _messages(self, index: int, positions: list[int], payloads: list[bytes | None]) -> Messages:
        reading = self._owned[index]
        reading.following = positions[-1] + 1
        return Messages(partition=reading.partition, positions=positions, payloads=payloads)

    def _settle(self) -> None:
        """Handle the monitor's reply: a recreated topic, or partitions that wait for an epoch."""
        answer = self._watch.answer()
        if answer is None:
            return
        if answer.error is not None:
            self._heard(answer.error)
            return
        self._trouble = None
        self._names = answer.names
        epoch = str(answer.epoch)
        old = [index for index, reading in self._owned.items() if reading.partition.epoch != epoch]
        if old:
            _log.warning("stream.recreated", topic=self._topic, epoch=epoch)
            self._pending += old
            self._let_go(old)
        lost = [reading for reading in self._owned.values() if reading.lost]
        for reading in lost:
            self._move_to_oldest(reading)
        held = self._held or bool(self._pending or lost)
        if self._pending:
            self._watch.hurry()  # the next reply continues with partitions that the listener fails to accept now
        while self._pending:
            partition = Partition(name=str(self._pending[-1]), epoch=epoch)
            self._owned[self._pending[-1]] = _KafkaReading(partition, self._owner.assigned(partition))
            self._pending.pop()
            self._held = True  # until all are read, in case the listener fails with the next one
        if held:
            self._read_on()
            self._held = False

    def _read_on(self) -> None:
        """Assign all owned partitions to the client, from their next positions."""
        self._consumer.assign(
            [
                kafka.TopicPartition(
                    self._topic, index, kafka.OFFSET_BEGINNING if reading.following is None else reading.following
                )
                for index, reading in self._owned.items()
            ]
        )

    def _move_to_oldest(self, reading: _KafkaReading) -> None:
        place = kafka.TopicPartition(self._topic, int(reading.partition.name))
        try:
            low, high = self._consumer.get_watermark_offsets(place, timeout=_WATERMARKS_S)
        except kafka.KafkaException as error:
            self._heard(error.args[0])
            return
        self._loss = (
            f"Kafka topic {self._topic!r}: partition {reading.partition.name} was to be read from {reading.following}, "
            f"and has only {low} to {high}: messages in between are lost"
        )
        _log.error(
            "stream.out_of_range",
            topic=self._topic,
            partition=reading.partition.name,
            position=reading.following,
            oldest=low,
            end=high,
        )
        reading.following, reading.lost = low, False

    def _failed(self, index: int, error: kafka.KafkaError) -> None:
        """Handle an error that the client returned instead of a message."""
        reading = self._owned.get(index)
        # The topic may have been recreated, with other offsets.
        if reading and error.code() in OUT_OF_RANGE:
            reading.lost = True
            self._watch.ask()
        if error.code() in GONE and self._owned:
            self._held = True
            self._consumer.assign([])
            self._watch.ask()
        self._heard(error)

    def _heard(self, error: kafka.KafkaError) -> None:
        if is_final(error):
            self._refused = error
            return
        if self._trouble is None:
            _log.warning("stream.away", topic=self._topic, error=error.str(), code=error.name())
        self._trouble = f"Kafka topic {self._topic!r}: {error.str()}"
        self._watch.hurry()

    def _on_assign(self, consumer: kafka.Consumer, partitions: list[kafka.TopicPartition]) -> None:
        # Nothing is read until the broker has replied with the id of the topic.
        consumer.assign([])
        self._pending = [partition.partition for partition in partitions]
        self._watch.ask()

    def _on_revoke(self, _: kafka.Consumer, partitions: list[kafka.TopicPartition]) -> None:
        gone = {partition.partition for partition in partitions}
        self._pending = [index for index in self._pending if index not in gone]
        self._let_go([index for index in self._owned if index in gone])

    def _let_go(self, indices: Iterable[int]) -> None:
        for index in indices:
            self._owner.revoked(self._owned.pop(index).partition)


def _committed(error: kafka.KafkaError | None, partitions: list[kafka.TopicPartition]) -> None:
    if error is not None:
        _log.info("stream.not_committed", error=error.str(), n_partitions=len(partitions))
