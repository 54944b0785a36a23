"""The connector of sources whose events are in a Kinesis stream: an entry point of ``skewless.streams``."""

from __future__ import annotations

from skewless.contract.render import count_text
from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource
from skewless.infra.ingest.streams.port import EventSender, OpenStream, StreamFacts
from skewless.infra.platform.storage.database import Database
from skewless_kinesis.client import KinesisClient, KinesisSender
from skewless_kinesis.stream import KinesisStream


class KinesisConnector:
    """Implements ``StreamConnector``; the topic of a source is the name of its stream, and its servers a region."""

    def open_stream(
        self,
        source: EventSource,
        settings: Settings,  # noqa: ARG002 - credentials and endpoint are those of AWS's tools
        group: str,
        database: Database,
    ) -> OpenStream:
        """Return a function that joins the workers of a stream; see ``StreamConnector``."""
        return lambda owner: KinesisStream(
            KinesisClient(source.servers, source.topic), database=database, source=source.name, owner=owner, group=group
        )

    def open_sender(self, source: EventSource, settings: Settings) -> EventSender:  # noqa: ARG002 - as above
        """Return a sender to the stream; see ``StreamConnector``."""
        return self.open_topic(source.servers, source.topic)

    def open_topic(self, region: str, stream: str, timeout_s: float = 30.0) -> KinesisSender:
        """Return a sender to a stream, for sources and sinks."""
        return KinesisSender(region, stream, timeout_s)

    def describe(self, source: EventSource, settings: Settings) -> StreamFacts:  # noqa: ARG002 - as above
        """Return the facts of the stream; see ``StreamConnector``."""
        facts = KinesisClient(source.servers, source.topic).describe()
        kept = count_text(round(facts.retention_s / 3_600), "hour")
        return StreamFacts(f"{count_text(len(facts.shards), 'shard')}, records are kept for {kept}")


CONNECTOR = KinesisConnector()
