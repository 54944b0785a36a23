"""Sends events to the stream of a source: its Kafka topic or its Redis stream."""

from __future__ import annotations

import json
from collections.abc import Sequence
from zlib import crc32

from skewless.contract.errors import DefinitionError
from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource
from skewless.infra.online.clients import translate_errors
from skewless.infra.streams.port import EventSender
from skewless.infra.streams.redis_link import FIELD, EventKeys, RedisLink

_CHUNK = 1_000


def open_sender(source: EventSource, settings: Settings, *, project: str, redis_url: str) -> EventSender:
    """Return a sender for a source's stream.

    Args:
        source: of the events.
        settings: of the project.
        project: name of the project.
        redis_url: of the streams of push sources.

    Raises:
        DefinitionError: the Kafka client is not installed, or its settings cannot be read.
    """
    if source.kind == "kafka":
        from skewless.infra.streams.kafka_sender import KafkaSender  # noqa: PLC0415 - an optional dependency

        return KafkaSender(source.servers, source.topic, settings=kafka_options(settings.kafka))
    n_partitions = settings.stream_partitions
    return RedisSender(redis_url, project=project, source=source.name, n_partitions=n_partitions)


def kafka_options(text: str) -> dict[str, object]:
    """Return the settings of the Kafka client from the setting ``kafka``.

    Raises:
        DefinitionError: it is not a JSON object.
    """
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise DefinitionError(
            "setting 'kafka'",
            "is not a JSON object",
            fix='set librdkafka\'s settings, as {"security.protocol": "SSL"}',
        )
    return settings


class RedisSender:
    """Implements ``EventSender``; the CRC-32 of a key chooses its partition.

    Args:
        url: as in the setting ``redis_url``.
        project: name of the project.
        source: name of the event source.
        n_partitions: the same number as its readers use.
        timeout_s: the timeout of a reply, in seconds.
    """

    def __init__(self, url: str, *, project: str, source: str, n_partitions: int, timeout_s: float = 5.0) -> None:
        keys = EventKeys(project=project, source=source)
        self._streams = [keys.stream(index) for index in range(n_partitions)]
        self._url = url
        self._link = RedisLink(url, timeout_s)
        self._next_index = 0

    def send(self, payloads: Sequence[bytes], keys: Sequence[str] | None = None) -> None:
        """Send messages; see ``EventSender``."""
        with translate_errors(self._url):
            client = self._link.client()
            for start in range(0, len(payloads), _CHUNK):
                pipe = client.pipeline(transaction=False)
                for number in range(start, min(start + _CHUNK, len(payloads))):
                    stream = self._streams[self._index(None if keys is None else keys[number])]
                    pipe.execute_command("XADD", stream, "*", FIELD, payloads[number])
                pipe.execute()

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def _index(self, key: str | None) -> int:
        if key is not None:
            # Not `hash`, which differs between processes.
            return crc32(key.encode()) % len(self._streams)
        # Messages without a key are spread round-robin.
        self._next_index += 1
        return self._next_index % len(self._streams)
