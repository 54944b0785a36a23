"""What puts events into a source's own stream: its topic, or a stream in Redis."""

from __future__ import annotations

import json

from skewless.contract.errors import DefinitionError
from skewless.contract.windows.view import EventSource
from skewless.infra.streams.port import EventSender
from skewless.infra.streams.redis_sender import RedisSender


def open_sender(source: EventSource, *, redis_url: str, project: str, n_partitions: int, kafka: str) -> EventSender:
    """Return what puts events into a source's stream.

    Args:
        redis_url: where the streams of push sources are.
        n_partitions: of a stream in Redis; the same number as its workers have.
        kafka: the setting ``kafka``.

    Raises:
        DefinitionError: the settings of the Kafka client cannot be read, or it is not installed.
    """
    if source.kind == "kafka":
        from skewless.infra.streams.kafka_sender import KafkaSender  # noqa: PLC0415 - an extra that others do without

        return KafkaSender(source.servers, source.topic, settings=kafka_options(kafka))
    return RedisSender(redis_url, project=project, source=source.name, n_partitions=n_partitions)


def kafka_options(text: str) -> dict[str, object]:
    """Return the settings of the Kafka client from the setting ``kafka``.

    Raises:
        DefinitionError: it is not a JSON object.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DefinitionError(
            "setting 'kafka'",
            "is not a JSON object",
            fix='write librdkafka\'s settings, as {"security.protocol": "SSL"}',
        )
    return found
