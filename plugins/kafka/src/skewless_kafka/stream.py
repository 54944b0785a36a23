"""Reads events from a Kafka topic, shared among the workers of a consumer group."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import confluent_kafka as kafka
from confluent_kafka.admin import AdminClient

from skewless.infra.ingest.streams.port import Messages, Partition, RebalanceListener
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless_kafka.client import (
    END_OF_PARTITION,
    MISSING_TOPIC,
    OUT_OF_RANGE,
    TopicEnds,
    TopicMonitor,
    admin_settings,
    broker_error,
    consumer_settings,
    is_incremental,
    translate_settings_errors,
)

# Errors that waiting cannot repair, unless the topic has been seen: then rights were taken away and may come back.
_FINAL = {
    kafka.KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    kafka.KafkaError.GROUP_AUTHORIZATION_FAILED,
    kafka.KafkaError.SASL_AUTHENTICATION_FAILED,
    kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED,
    kafka.KafkaError.TOPIC_EXCEPTION,
    kafka.KafkaError.UNSUPPORTED_SASL_MECHANISM,
    kafka.KafkaError._AUTHENTICATION,  # noqa: SLF001
}
_ENDED = kafka.KafkaError._FATAL  # noqa: SLF001 - the client has ended
# Of the client's error after an unclean election of a leader: the first position whose message is another one now.
_CUT = re.compile(r"truncation detected .* broker end offset is (\d+)")
# Of the client's error about a reply of a broker that is longer than it may be; the client asks again and again.
_TOO_LONG = re.compile(r"Invalid response size (\d+) .*increase receive\.message\.max\.bytes")
_SLICE_S = 0.1
_WATERMARKS_S = 2.0
_log = EventLogger()


@dataclass
class _KafkaProgress:
    """The progress in an owned partition.

    Args:
        partition: name and epoch.
        next_position: the next position; None: the oldest one.
        is_lost: the next position does not exist any more.
        cut_position: from here on, the partition has other messages than those that were read.
        leader_epoch: of the last message; the broker compares it with its own to find a cut. -1: unknown.
        left_position: it did not exist, and nothing has been read since; fetches from there may still fail.
        end_position: position at which the client last reached the end; transaction markers may lie before it.
    """

    partition: Partition
    next_position: int | None
    is_lost: bool = False
    cut_position: int | None = None
    leader_epoch: int = -1
    left_position: int | None = None
    end_position: int = 0

    @property
    def position(self) -> int:
        """Position up to which everything has been read."""
        return max(self.next_position or 0, self.end_position)


class KafkaStream:
    """Implements ``EventStream``. A position is an offset; the epoch of a partition is the id of the topic.

    The id is requested at each assignment, when the topic or an offset is missing, and every five seconds. If the
    client goes on with a recreated topic at the old offsets, its log says so, and what it has read is dropped.

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
        self._owned: dict[int, _KafkaProgress] = {}
        self._unassigned: list[int] = []
        self._is_incremental = is_incremental(settings or {})
        self._is_paused = self._is_denied = False
        self._client_id: str | None = None  # of the topic that the client reads; None: unknown
        self._has_returned_messages = False
        self._final_error: kafka.KafkaError | None = None
        self._trouble: str | None = None  # the last error of the broker
        self._loss: str | None = None  # lost positions; a reply of the broker does not clear it
        self._blockage: str | None = None  # a message that the client must not receive; messages clear it
        self._partition_names: tuple[str, ...] | None = None
        callbacks = {"error_cb": self._handle_error, "on_commit": _on_commit}
        with translate_settings_errors(topic):
            options = consumer_settings(bootstrap, group, topic, settings or {}, self._on_topic_id)
            self._consumer = kafka.Consumer({**options, **callbacks})
            admin = AdminClient(admin_settings(bootstrap, settings or {}))
            self._monitor, self._ends = TopicMonitor(topic, admin), TopicEnds(topic, admin)
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)

    @property
    def trouble(self) -> str | None:
        """The current problem; see ``EventStream``."""
        return self._loss or self._blockage or self._trouble

    def poll(self, limit: int, timeout_s: float) -> list[Messages]:
        """Return messages; see ``EventStream``."""
        deadline = time.monotonic() + timeout_s
        if self._has_returned_messages:  # the loss was visible since the last messages were returned
            self._loss = self._trouble = None
        while True:
            self._handle_reply()  # before messages are taken, because it may read from other positions
            left = deadline - time.monotonic()
            batch = self._consume(limit, max(0.0, min(left, _SLICE_S)))
            self._ends.update(self._owned)
            messages = self._group_messages(batch)
            if messages or left <= 0:
                self._has_returned_messages = bool(messages)
                return messages

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Commit positions; see ``EventStream``. Returns before the broker has them."""
        owned_partitions = {progress.partition for progress in self._owned.values()}
        offsets = [
            kafka.TopicPartition(self._topic, int(partition.name), at)
            for partition, at in positions.items()
            if partition in owned_partitions
        ]
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except kafka.KafkaException as error:
            self._handle_error(error.args[0])

    def lag(self) -> int | None:
        """Return the lag; see ``EventStream``. From the last fetches, and too high for a compacted topic."""
        total = 0
        for index, progress in self._owned.items():
            low, high = self._consumer.get_watermark_offsets(kafka.TopicPartition(self._topic, index), cached=True)
            # Nothing was fetched from this partition yet.
            if high < 0:
                return None
            total += max(0, high - max(progress.position, low))
        return total

    def find_drained(self) -> Mapping[Partition, float]:
        """Return drained partitions; see ``EventStream``. From replies within the last two seconds."""
        ages = {
            progress.partition: self._ends.age_s(index, progress.position) for index, progress in self._owned.items()
        }
        return {} if self.trouble else {partition: age for partition, age in ages.items() if age is not None}

    def partition_names(self) -> Collection[str] | None:
        """Return partition names; see ``EventStream``. From a reply a few seconds ago."""
        return self._partition_names

    def close(self) -> None:
        """Leave the group; see ``EventStream``."""
        self._consumer.close()
        self._revoke_partitions(list(self._owned))

    def _consume(self, limit: int, wait_s: float) -> list[kafka.Message]:
        """Return available messages, or wait for the first; the client's own wait would be for all of them."""
        batch = self._consumer.consume(limit, 0)
        if not batch and wait_s:
            batch = self._consumer.consume(1, wait_s)
            batch += self._consumer.consume(limit - 1, 0) if batch and limit > 1 else []
        if self._final_error:
            raise broker_error(self._topic, self._final_error)
        if any(progress.partition.epoch != self._client_id for progress in self._owned.values() if self._client_id):
            self._pause()  # it may be of a recreated topic
            return []
        return batch

    def _group_messages(self, batch: Iterable[Any]) -> list[Messages]:
        groups: dict[int, tuple[list[int], list[bytes | None]]] = {}
        ends: dict[int, kafka.Message] = {}
        last, positions, payloads = -1, list[int](), list[bytes | None]()
        for message in batch:
            error = message.error()
            if error is not None:
                if error.code() == END_OF_PARTITION:
                    if message.partition() in self._owned:
                        self._owned[message.partition()].end_position = message.offset()
                        self._is_denied = False
                else:
                    self._handle_message_error(message.partition(), message.offset(), error)
                continue
            index = message.partition()
            if index != last:
                last, (positions, payloads) = index, groups.setdefault(index, ([], []))
            positions.append(message.offset())
            payloads.append(message.value())
            ends[index] = message
        self._is_denied, self._blockage = self._is_denied and not ends, None if ends else self._blockage
        return [self._messages(index, ends[index], *groups[index]) for index in groups if index in self._owned]

    def _messages(self, index: int, end: kafka.Message, positions: list[int], payloads: list[bytes | None]) -> Messages:
        progress = self._owned[index]
        progress.next_position, progress.left_position = positions[-1] + 1, None
        progress.leader_epoch = _epoch_of(end.leader_epoch())
        return Messages(partition=progress.partition, positions=positions, payloads=payloads)

    def _handle_reply(self) -> None:
        """Handle the monitor's reply: a recreated topic, or partitions that wait for an epoch."""
        reply = self._monitor.poll_reply()
        if reply is None:
            return
        if isinstance(reply, kafka.KafkaError):
            self._handle_error(reply)
            return
        epoch, self._partition_names = reply
        if self._client_id not in {None, epoch}:
            self._monitor.request_soon()  # one of the two does not know the topic of now yet
            return
        if not self._is_denied:
            self._trouble = None
        self._revoke_recreated(epoch)
        lost_partitions = [progress for progress in self._owned.values() if progress.is_lost]
        for progress in lost_partitions:
            self._move_from_lost(progress)
        is_paused = self._is_paused or bool(self._unassigned or lost_partitions)
        if self._unassigned:
            self._monitor.request_soon()  # retries partitions that the listener fails to accept now
        while self._unassigned:
            partition = Partition(name=str(self._unassigned[-1]), epoch=epoch)
            self._owned[self._unassigned[-1]] = _KafkaProgress(partition, self._owner.on_assigned(partition))
            self._unassigned.pop()
            self._is_paused = True  # until all are read, in case the listener fails with the next one
        if is_paused:
            self._assign_all()
            self._is_paused = False

    def _revoke_recreated(self, epoch: str) -> None:
        """Revoke partitions of another epoch; they wait to be assigned again."""
        recreated = [index for index, progress in self._owned.items() if progress.partition.epoch != epoch]
        if recreated:
            _log.warning("stream_recreated", topic=self._topic, epoch=epoch)
            self._unassigned += recreated
            self._revoke_partitions(recreated)

    def _pause(self) -> None:
        """Read nothing until the broker has replied with the id of the topic."""
        if self._is_paused:
            return  # another request would replace the one whose reply is awaited
        self._is_paused = True
        self._assign([])
        self._monitor.request()

    def _assign_all(self) -> None:
        """Assign all owned partitions to the client, from their next positions."""
        self._assign(
            [
                kafka.TopicPartition(
                    self._topic,
                    index,
                    kafka.OFFSET_BEGINNING if progress.next_position is None else progress.next_position,
                    leader_epoch=progress.leader_epoch,
                )
                for index, progress in self._owned.items()
            ]
        )

    def _assign(self, partitions: list[kafka.TopicPartition]) -> None:
        """Let the client read these partitions, and no other."""
        if self._is_incremental:
            self._consumer.incremental_unassign(self._consumer.assignment())
            self._consumer.incremental_assign(partitions)
        else:
            self._consumer.assign(partitions)

    def _move_from_lost(self, progress: _KafkaProgress) -> None:
        """Continue where a partition was cut, or else with the oldest message, and report the loss."""
        partition = kafka.TopicPartition(self._topic, int(progress.partition.name))
        try:
            low, high = self._consumer.get_watermark_offsets(partition, timeout=_WATERMARKS_S)
        except kafka.KafkaException as error:
            self._handle_error(error.args[0])
            return
        position, cut = progress.next_position or 0, progress.cut_position
        problem = (
            f"has only positions {low} to {high}, and was to be read from {position}: messages in between are lost"
        )
        if cut is not None:
            problem = f"was cut at {cut} by the election of a leader that lacked messages: those after it are lost"
        self._loss = f"Kafka topic {self._topic!r}: partition {progress.partition.name} {problem}"
        _log.error(
            "stream_positions_lost",
            topic=self._topic,
            partition=progress.partition.name,
            position=position,
            oldest=low,
            end=high,
            cut=cut,
        )
        progress.left_position, progress.is_lost, progress.leader_epoch = progress.next_position, False, -1
        progress.next_position = low if cut is None else max(low, min(cut, position))

    def _handle_message_error(self, index: int, position: int | None, error: kafka.KafkaError) -> None:
        """Handle an error that the client returned instead of a message."""
        progress = self._owned.get(index)
        # The topic may have been recreated, with other offsets.
        if progress and error.code() in OUT_OF_RANGE:
            if position is not None and position == progress.left_position != progress.next_position:
                return
            cut = _CUT.search(error.str())
            progress.is_lost, progress.cut_position = True, int(cut[1]) if cut else None
            self._monitor.request()
        if error.code() in MISSING_TOPIC and self._owned:
            self._pause()  # it may have been recreated
        self._is_denied |= error.code() == kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED
        self._handle_error(error)

    def _handle_error(self, error: kafka.KafkaError) -> None:
        was_seen = self._owned or self._partition_names is not None
        if error.fatal() or error.code() == _ENDED or (error.code() in _FINAL and not was_seen):
            self._final_error = error
            return
        if too_long := _TOO_LONG.search(error.str()):
            problem = f"sends {too_long[1]} bytes, more than the client's receive.message.max.bytes"
            self._blockage = f"Kafka topic {self._topic!r}: {problem}: raise it in the setting 'kafka'"
        if self._trouble is None:
            _log.warning("stream_unavailable", topic=self._topic, error=error.str(), code=error.name())
        self._trouble = f"Kafka topic {self._topic!r}: {error.str()}"
        self._monitor.request_soon()

    def _on_topic_id(self, topic_id: str) -> None:
        self._client_id = topic_id

    def _on_assign(self, consumer: kafka.Consumer, partitions: list[kafka.TopicPartition]) -> None:
        # Nothing is read until the broker has replied with the id of the topic.
        (consumer.incremental_assign if self._is_incremental else consumer.assign)([])
        self._unassigned += [partition.partition for partition in partitions]
        self._monitor.request()

    def _on_revoke(self, consumer: kafka.Consumer, partitions: list[kafka.TopicPartition]) -> None:
        revoked_indices = {partition.partition for partition in partitions}
        if self._is_incremental:  # some may not have been assigned to the client yet
            consumer.incremental_unassign([each for each in consumer.assignment() if each.partition in revoked_indices])
        self._unassigned = [index for index in self._unassigned if index not in revoked_indices]
        self._revoke_partitions([index for index in self._owned if index in revoked_indices])

    def _revoke_partitions(self, indices: Iterable[int]) -> None:
        for index in indices:
            self._owner.on_revoked(self._owned.pop(index).partition)


def _epoch_of(leader_epoch: int | None) -> int:
    return -1 if leader_epoch is None else leader_epoch


def _on_commit(error: kafka.KafkaError | None, partitions: list[kafka.TopicPartition]) -> None:
    # Not a failure: the log, not the broker, decides where to continue (SEMANTICS 4.2).
    if error is not None:
        _log.info("stream_commit_failed", error=error.str(), n_partitions=len(partitions))
