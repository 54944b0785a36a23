"""Delivers decisions as messages: to a Kafka topic, and to a Redis stream."""

from __future__ import annotations

from collections.abc import Sequence

from skewless.contract.errors import StoreError
from skewless.contract.sinks import KafkaSink, RedisStreamSink
from skewless.infra.decisions.decision import MessageWriter
from skewless.infra.decisions.outbox import DecisionBatch
from skewless.infra.decisions.sink_positions import Refusal
from skewless.infra.online.clients import translate_errors
from skewless.infra.streams.port import EventSender
from skewless.infra.streams.redis_link import RedisLink

# Errors of Kafka about one message; the broker may report one for all messages of a request.
_REFUSALS = {"MSG_SIZE_TOO_LARGE", "INVALID_MSG", "INVALID_RECORD", "INVALID_TIMESTAMP", "POLICY_VIOLATION"}


class KafkaDelivery:
    """Implements ``DecisionSink`` for a topic; a message with a key goes to the key's partition.

    Args:
        sink: its declaration.
        writer: of messages.
        sender: of the topic; closed with this object.
    """

    retry_after_s: float | None = None

    def __init__(self, sink: KafkaSink, writer: MessageWriter, sender: EventSender) -> None:
        self._key, self._writer, self._sender = sink.key, writer, sender

    def send(self, batch: DecisionBatch) -> Sequence[Refusal]:
        """Deliver a batch; see ``DecisionSink``."""
        messages = [self._writer.write(decision) for decision in batch.decisions]
        keys = [decision.key(self._key) for decision in batch.decisions]
        if self._try(messages, keys) is None:
            return ()
        # Which message was refused is unknown, so each is sent alone, in order.
        reasons = [self._try([message], [key]) for message, key in zip(messages, keys, strict=True)]
        return [
            Refusal(id=decision.id, position=position, reason=f"Kafka refuses the message: {reason}")
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
            if error.value not in _REFUSALS:
                raise
            return str(error.value)
        return None


class RedisDelivery:
    """Implements ``DecisionSink`` for a Redis stream.

    Args:
        sink: its declaration.
        writer: of messages.
        url: of Redis.
    """

    retry_after_s: float | None = None

    def __init__(self, sink: RedisStreamSink, writer: MessageWriter, url: str) -> None:
        self._writer, self._url = writer, url
        limit = () if sink.most_entries is None else ("MAXLEN", "~", sink.most_entries)
        self._command = ("XADD", sink.stream, *limit, "*", "id")
        self._link = RedisLink(url, sink.timeout_s)

    def send(self, batch: DecisionBatch) -> Sequence[Refusal]:
        """Deliver a batch; see ``DecisionSink``."""
        with translate_errors(self._url):
            pipe = self._link.client().pipeline(transaction=False)
            for decision in batch.decisions:
                pipe.execute_command(*self._command, decision.id, "decision", self._writer.write(decision))
            pipe.execute()
        return ()

    def close(self) -> None:
        """Close the connection; see ``DecisionSink``."""
        self._link.close()
