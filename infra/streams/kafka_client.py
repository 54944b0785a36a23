"""Settings and errors of the Kafka client.

Importing this module raises DefinitionError if ``confluent-kafka`` is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from skewless.contract.errors import DefinitionError, StoreError
from skewless.infra.telemetry.logger import EventLogger

try:
    import confluent_kafka as kafka
    from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it does not list it
except ImportError as missing:
    raise DefinitionError(
        "Kafka", "needs the package confluent-kafka", fix="pip install 'skewless[kafka]'"
    ) from missing

__all__ = ["AdminClient", "OffsetSpec", "kafka"]  # other modules import the package from here

# The names of the client's own errors begin with an underscore.
END_OF_PARTITION = kafka.KafkaError._PARTITION_EOF  # noqa: SLF001 - it has no public name
OUT_OF_RANGE = {kafka.KafkaError._AUTO_OFFSET_RESET, kafka.KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001
MISSING_TOPIC = {
    kafka.KafkaError.UNKNOWN_TOPIC_ID,
    kafka.KafkaError.UNKNOWN_TOPIC_OR_PART,
    kafka.KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    kafka.KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
}
TIMED_OUT = kafka.KafkaError._TIMED_OUT  # noqa: SLF001
# Errors that waiting cannot repair.
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

# The listener decides where to continue, so lost positions must be reported. The end of a partition must be reported
# too, because the marker at the end of a transaction has a position and is not a message.
_OWN_SETTINGS = {
    "auto.offset.reset": "error",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "group.protocol": "classic",
    "partition.assignment.strategy": "range,roundrobin",
}
# How soon a new topic or partition is found; the client's default is five minutes.
_DEFAULTS = {"topic.metadata.refresh.interval.ms": 5_000}
_RESERVED = {*_OWN_SETTINGS, "bootstrap.servers", "group.id", "error_cb", "logger", "acks", "enable.idempotence"}

_log = EventLogger()


class ClientLog:
    """Forwards the client's log lines to our log; they contain no settings."""

    def log(self, level: int, form: str, *parts: object) -> None:
        """Log one line; ``level`` as in the standard library."""
        _log.log(min(max(level, 10), 50), "kafka_client_logged", line=form % parts)


def is_final(error: kafka.KafkaError) -> bool:
    """Return whether an error is permanent."""
    return error.fatal() or error.code() in _FINAL


def broker_error(topic: str, error: kafka.KafkaError) -> StoreError:
    """Return the error for a request that the broker rejects."""
    return StoreError(
        f"Kafka topic {topic!r}",
        f"was rejected by the broker: {error.str()}",
        value=error.name(),
        fix="correct the address, the permissions or the settings of Kafka; no data was lost",
    )


@contextmanager
def translate_settings_errors(topic: str) -> Iterator[None]:
    """Raise DefinitionError for invalid client settings; their values are not quoted."""
    try:
        yield
    except kafka.KafkaException as error:
        problem = error.args[0].str().partition("value")[0]
        raise DefinitionError(
            f"settings of Kafka topic {topic!r}", f"are invalid: {problem}", fix="correct the settings of librdkafka"
        ) from None


def consumer_settings(bootstrap: str, group: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a consumer group member.

    Raises:
        DefinitionError: ``extra`` has a setting that skewless sets itself.
    """
    settings = {**_DEFAULTS, **_check_settings(extra)}
    return {**settings, **_OWN_SETTINGS, "bootstrap.servers": bootstrap, "group.id": group, "logger": ClientLog()}


def producer_settings(bootstrap: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a producer that stores each message once, on all in-sync replicas.

    Raises:
        DefinitionError: ``extra`` has a setting that skewless sets itself.
    """
    settings = {
        "partitioner": "murmur2_random",
        **_check_settings(extra),
    }  # the same partition per key as Java's producers
    own = {"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "logger": ClientLog()}
    return {**settings, **own}


def admin_settings(bootstrap: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a client that only describes topics; it needs the same credentials."""
    shared = ("client.", "sasl.", "security.", "socket.", "ssl.", "broker.", "reconnect.", "enable.ssl", "enable.sasl")
    allowed = {name: value for name, value in extra.items() if name.startswith(shared)}
    return {**allowed, "bootstrap.servers": bootstrap, "logger": ClientLog()}


def _check_settings(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    reserved = sorted(_RESERVED & set(extra))
    if reserved:
        raise DefinitionError(
            "settings of Kafka", "include settings that skewless sets", value=", ".join(reserved), fix="remove them"
        )
    return extra
