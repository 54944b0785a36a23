"""Delivers decisions as messages: to a Kafka topic, a Kinesis stream, and a Redis stream."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from skewless.contract.destinations import SinkHosts
from skewless.contract.errors import StoreError
from skewless.contract.sinks import KafkaSink, KinesisSink, RedisStreamSink
from skewless.infra.ingest.streams.port import EventSender
from skewless.infra.ingest.streams.redis_link import RedisLink, add_entries
from skewless.infra.reads.online.clients import translate_errors
from skewless_decisions.decision import MessageWriter
from skewless_decisions.outbox import DecisionBatch
from skewless_decisions.sink_positions import Refusal

if TYPE_CHECKING:
    from skewless_kafka.client import KafkaSender

# Errors of Kafka about one message; the broker may report one for all messages of a request.
_REFUSALS = {"MSG_SIZE_TOO_LARGE", "INVALID_MSG", "INVALID_RECORD", "INVALID_TIMESTAMP", "POLICY_VIOLATION"}
_BROKERS_S = 60.0  # the longest time for which the brokers that were checked count as those of the cluster


class _SenderDelivery:
    """Implements ``DecisionSink`` with a sender, whose errors have the broker's code as their value.

    Args:
        sink: its declaration.
        writer: of messages.
        sender: to the topic; closed with this object.
        refusals: codes of errors about one message.
        broker: its name.
    """

    retry_after_s: float | None = None

    def __init__(
        self, sink: KafkaSink | KinesisSink, writer: MessageWriter, sender: EventSender, refusals: set[str], broker: str
    ) -> None:
        self._sink, self._writer, self._sender, self._refusals, self._broker = sink, writer, sender, refusals, broker

    def send(self, batch: DecisionBatch) -> Sequence[Refusal]:
        """Deliver a batch; see ``DecisionSink``."""
        messages = [self._writer.write(decision) for decision in batch.decisions]
        keys = [decision.key(self._sink.key) for decision in batch.decisions]
        if self._try(messages, keys) is None:
            return ()
        # Which message was refused is unknown, so each is sent alone, in order.
        reasons = [self._try([message], [key]) for message, key in zip(messages, keys, strict=True)]
        return [
            Refusal(id=decision.id, position=position, reason=f"{self._broker} refuses the message: {reason}")
            for decision, position, reason in zip(batch.decisions, batch.positions, reasons, strict=True)
            if reason is not None
        ]

    def close(self) -> None:
        """Close the connections; see ``DecisionSink``."""
        self._sender.close()

    def _try(self, messages: Sequence[bytes], keys: Sequence[str]) -> str | None:
        """Send messages; return why one of them is refused, None if all are stored."""
        try:
            self._sender.send(messages, keys)
        except StoreError as error:
            if error.value not in self._refusals:
                raise
            return str(error.value)
        return None


class KafkaDelivery(_SenderDelivery):
    """Implements ``DecisionSink`` for a topic; a message with a key goes to the key's partition.

    Args:
        sink, writer, sender: as for ``_SenderDelivery``.
        hosts: that brokers may advertise.
    """

    def __init__(self, sink: KafkaSink, writer: MessageWriter, sender: KafkaSender, hosts: SinkHosts) -> None:
        super().__init__(sink, writer, sender, _REFUSALS, "Kafka")
        self._topic, self._hosts, self._checked_at = sender, hosts, -_BROKERS_S

    def send(self, batch: DecisionBatch) -> Sequence[Refusal]:
        """Deliver a batch; see ``DecisionSink``."""
        if time.monotonic() - self._checked_at >= _BROKERS_S:
            problem = "has brokers that advertise a host that is not allowed"
            self._hosts.check(self._sink, self._topic.broker_hosts(), problem)
            self._checked_at = time.monotonic()
        try:
            return super().send(batch)
        except StoreError:
            self._checked_at = -_BROKERS_S  # there may be other brokers now
            raise


class KinesisDelivery(_SenderDelivery):
    """Implements ``DecisionSink`` for a Kinesis stream; a message that is stored twice has the same id."""

    def __init__(self, sink: KinesisSink, writer: MessageWriter, sender: EventSender) -> None:
        super().__init__(sink, writer, sender, {"ValidationException"}, "Kinesis")


class RedisDelivery:
    """Implements ``DecisionSink`` for a Redis stream.

    Args:
        sink: its declaration.
        writer: of messages.
        url: of Redis.
    """

    retry_after_s: float | None = None

    def __init__(self, sink: RedisStreamSink, writer: MessageWriter, url: str) -> None:
        self._sink, self._writer, self._url = sink, writer, url
        self._link = RedisLink(url, sink.timeout_s)

    def send(self, batch: DecisionBatch) -> Sequence[Refusal]:
        """Deliver a batch; see ``DecisionSink``."""
        with translate_errors(self._url):
            entries = [("id", decision.id, "decision", self._writer.write(decision)) for decision in batch.decisions]
            add_entries(self._link.client(), self._sink.stream, entries, self._sink.most_entries)
        return ()

    def close(self) -> None:
        """Close the connection; see ``DecisionSink``."""
        self._link.close()
