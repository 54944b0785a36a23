"""Sends events to a Kafka topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skewless.contract.errors import StoreError
from skewless.infra.streams.kafka_client import (
    TIMED_OUT,
    broker_error,
    kafka,
    producer_settings,
    translate_settings_errors,
)

_GRACE_S = 2.0


class KafkaSender:
    """Implements ``EventSender``: a message is stored once per call, on all in-sync replicas.

    Args:
        bootstrap: first brokers to contact, ``HOST:PORT,HOST:PORT``.
        topic: must exist, unless the broker creates topics automatically.
        settings: of librdkafka, for example for TLS and passwords; never logged.
        timeout_s: delivery timeout of a message, in seconds.

    Raises:
        DefinitionError: the settings are invalid.
    """

    def __init__(
        self, bootstrap: str, topic: str, *, settings: Mapping[str, Any] | None = None, timeout_s: float = 30.0
    ) -> None:
        self._topic = topic
        self._timeout_s = timeout_s
        self._settings = producer_settings(
            bootstrap, {"message.timeout.ms": int(timeout_s * 1_000), **(settings or {})}
        )
        self._errors: list[kafka.KafkaError] = []
        self._producer = self._open_producer()

    def send(self, payloads: Sequence[bytes], keys: Sequence[str] | None = None) -> None:
        """Send messages; see ``EventSender``."""
        self._errors.clear()
        try:
            for number, payload in enumerate(payloads):
                self._produce(payload, None if keys is None else keys[number])
            n_undelivered = self._producer.flush(self._timeout_s + _GRACE_S)
        except kafka.KafkaException as error:
            raise self._abort(error.args[0]) from error
        if n_undelivered or self._errors:
            raise self._abort(self._errors[0] if self._errors else kafka.KafkaError(TIMED_OUT))

    def close(self) -> None:
        """Flush and close; see ``EventSender``."""
        self._producer.flush(_GRACE_S)

    def _open_producer(self) -> kafka.Producer:
        with translate_settings_errors(self._topic):
            return kafka.Producer(self._settings)

    def _produce(self, payload: bytes, key: str | None) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value=payload, key=key, on_delivery=self._on_delivery)
            except BufferError:
                # The client's queue is full; handling deliveries makes room.
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def _on_delivery(self, error: kafka.KafkaError | None, _: kafka.Message) -> None:
        if error is not None:
            self._errors.append(error)

    def _abort(self, error: kafka.KafkaError) -> StoreError:
        """Return the error to raise, and discard queued messages: they must not be delivered after later ones."""
        self._producer.purge()
        self._producer.flush(_GRACE_S)
        self._producer = self._open_producer()  # a fatal error ends a producer
        return broker_error(self._topic, error)
