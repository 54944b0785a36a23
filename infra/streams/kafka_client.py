"""Kafka's client, and its errors as ours; the one place that finds the package missing.

Importing this raises DefinitionError where ``confluent-kafka`` is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from skewless.contract.errors import DefinitionError, StoreError

try:
    import confluent_kafka as kafka
    from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it does not list it
except ImportError as missing:
    raise DefinitionError(
        "Kafka", "needs the package confluent-kafka", fix="pip install 'skewless[kafka]'"
    ) from missing

__all__ = [
    "END_OF_PARTITION",
    "GONE",
    "OUT_OF_RANGE",
    "TIMED_OUT",
    "AdminClient",
    "ClientLog",
    "OffsetSpec",
    "is_final",
    "kafka",
    "made_with",
    "refused",
]

# The client's own errors have names with an underscore.
END_OF_PARTITION = kafka.KafkaError._PARTITION_EOF  # noqa: SLF001 - it has no public name
OUT_OF_RANGE = {kafka.KafkaError._AUTO_OFFSET_RESET, kafka.KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001
GONE = {
    kafka.KafkaError.UNKNOWN_TOPIC_ID,
    kafka.KafkaError.UNKNOWN_TOPIC_OR_PART,
    kafka.KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    kafka.KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
}
TIMED_OUT = kafka.KafkaError._TIMED_OUT  # noqa: SLF001
_FINAL = {
    kafka.KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    kafka.KafkaError.GROUP_AUTHORIZATION_FAILED,
    kafka.KafkaError.SASL_AUTHENTICATION_FAILED,
    kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED,
    kafka.KafkaError.TOPIC_EXCEPTION,
    kafka.KafkaError.UNSUPPORTED_SASL_MECHANISM,
    kafka.KafkaError._AUTHENTICATION,  # noqa: SLF001
    kafka.KafkaError._FATAL,  # noqa: SLF001
}
_log = structlog.get_logger(__name__)


class ClientLog:
    """Takes the client's own lines into our log; they hold no settings."""

    def log(self, level: int, form: str, *parts: object) -> None:
        """Log one line; ``level`` as in the standard library."""
        _log.log(min(max(level, 10), 50), "kafka.client", line=form % parts)


def is_final(error: kafka.KafkaError) -> bool:
    """Say whether waiting does not help."""
    return error.fatal() or error.code() in _FINAL


def refused(topic: str, error: kafka.KafkaError) -> StoreError:
    """Return the error that says what the broker does not do."""
    return StoreError(
        f"Kafka topic {topic!r}",
        f"is refused: {error.str()}",
        value=error.name(),
        fix="correct the address, the rights or the settings of Kafka; nothing was lost",
    )


@contextmanager
def made_with(topic: str) -> Iterator[None]:
    """Raise DefinitionError for settings that the client does not take; their values are not quoted."""
    try:
        yield
    except kafka.KafkaException as error:
        problem = error.args[0].str().partition("value")[0]
        raise DefinitionError(
            f"settings of Kafka topic {topic!r}", f"are refused: {problem}", fix="correct the settings of librdkafka"
        ) from None
