"""The connector of sources whose events are in a Kafka topic: an entry point of ``skewless.streams``."""

from __future__ import annotations

import json

from skewless.contract.errors import DefinitionError
from skewless.contract.render import count_text
from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource
from skewless.infra.ingest.streams.port import EventSender, OpenStream, StreamFacts
from skewless.infra.platform.storage.database import Database
from skewless_kafka.client import KafkaSender, describe_topic
from skewless_kafka.stream import KafkaStream

_TIMEOUT_S, _SEND_S = 10.0, 30.0


class KafkaConnector:
    """Implements ``StreamConnector``."""

    def open_stream(
        self,
        source: EventSource,
        settings: Settings,
        group: str,
        database: Database,  # noqa: ARG002 - the brokers have leases and positions
    ) -> OpenStream:
        """Return a function that joins a consumer group; see ``StreamConnector``."""
        options = read_options(settings.kafka)
        return lambda owner: KafkaStream(source.servers, source.topic, owner=owner, group=group, settings=options)

    def open_sender(self, source: EventSource, settings: Settings) -> EventSender:
        """Return a sender to the topic; see ``StreamConnector``."""
        return self.open_topic(source.servers, source.topic, settings.kafka)

    def open_topic(self, servers: str, topic: str, options: str, timeout_s: float = _SEND_S) -> KafkaSender:
        """Return a sender to a topic, for sources and sinks; ``options`` as the setting ``kafka``."""
        return KafkaSender(servers, topic, settings=read_options(options), timeout_s=timeout_s)

    def describe(self, source: EventSource, settings: Settings) -> StreamFacts:
        """Return the facts of the topic; see ``StreamConnector``."""
        topic = describe_topic(source.topic, source.servers, read_options(settings.kafka), _TIMEOUT_S)
        detail = f"{count_text(topic.partitions, 'partition')} on {count_text(topic.brokers, 'broker')}"
        if topic.has_id:
            return StreamFacts(detail)
        fix = "install Kafka 3.1 or later, or never recreate the topic"
        return StreamFacts(detail, "which give no topic ids: a recreated topic goes unnoticed", fix)


CONNECTOR = KafkaConnector()


def read_options(text: str) -> dict[str, object]:
    """Return the settings of the Kafka client from the setting ``kafka``.

    Raises:
        DefinitionError: it is not a JSON object.
    """
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        fix = 'set librdkafka\'s settings, as {"security.protocol": "SSL"}'
        raise DefinitionError("setting 'kafka'", "is not a JSON object", fix=fix)
    return options
