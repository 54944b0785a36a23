"""Opens the adapters of sinks, with the secrets and schemas that they need."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skewless.contract.clock import Clock, SystemClock
from skewless.contract.columns import digest
from skewless.contract.destinations import SinkHosts
from skewless.contract.settings import Settings
from skewless.contract.sinks import KafkaSink, KinesisSink, ParquetSink, RedisStreamSink, Sink, WebhookSink, read_secret
from skewless.infra.platform.host.plugins import require_plugin
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.clients import RedisAddress
from skewless_decisions.codec import require_codec
from skewless_decisions.decision import FramedMessages, JsonMessages, MessageWriter, open_schema
from skewless_decisions.message_sinks import KafkaDelivery, KinesisDelivery, RedisDelivery
from skewless_decisions.outbox import DecisionSink, Outbox
from skewless_decisions.parquet_sink import ParquetDelivery
from skewless_decisions.webhook_sink import WebhookDelivery

if TYPE_CHECKING:
    from skewless_kafka.connector import KafkaConnector
    from skewless_kinesis.connector import KinesisConnector


@dataclass(frozen=True, kw_only=True)
class SinkContext:
    """The places and settings that all sinks of a project share.

    Args:
        state: of the project.
        settings: of the project.
        redis_url: returns the URL of the project's streams.
        environment: variables with the secrets of sinks.
        clock: of the project, for the counts by day.
    """

    state: ProjectState
    settings: Settings
    redis_url: Callable[[], str]
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = field(default_factory=SystemClock)


def open_delivery(context: SinkContext, sink: Sink, outbox: Outbox) -> DecisionSink:
    """Return the adapter of a sink.

    Raises:
        DefinitionError: a secret, a package or the schema registry is missing, or the sink's host is not allowed.
        StoreError: the schema registry is unavailable.
    """
    hosts = SinkHosts(context.settings.sink_hosts)
    hosts.check(sink)
    if isinstance(sink, ParquetSink):
        return ParquetDelivery(sink, context.state.storage)
    writer = open_writer(context, sink, outbox)
    if isinstance(sink, KafkaSink):
        options = context.settings.kafka
        if sink.options_env is not None:
            options = read_secret(sink, sink.options_env, context.environment)
        connector: KafkaConnector = require_plugin("skewless.streams", "kafka")
        sender = connector.open_topic(sink.servers, sink.topic, options, timeout_s=sink.timeout_s)
        return KafkaDelivery(sink, writer, sender, hosts)
    if isinstance(sink, KinesisSink):
        kinesis: KinesisConnector = require_plugin("skewless.streams", "kinesis")
        return KinesisDelivery(sink, writer, kinesis.open_topic(sink.region, sink.stream, sink.timeout_s))
    if isinstance(sink, RedisStreamSink):
        if sink.url_env is None:
            return RedisDelivery(sink, writer, context.redis_url())
        url = read_secret(sink, sink.url_env, context.environment)
        hosts.check(sink, RedisAddress.parse(url).host_names)
        return RedisDelivery(sink, writer, url)
    return WebhookDelivery(sink, writer, context.environment, hosts=hosts)


def open_writer(
    context: SinkContext, sink: KafkaSink | KinesisSink | RedisStreamSink | WebhookSink, outbox: Outbox
) -> MessageWriter:
    """Return a writer of a sink's messages; the id of its schema stays that of the first message.

    Raises:
        DefinitionError, StoreError: as ``open_delivery``.
    """
    if sink.format == "json":
        return JsonMessages()
    schema = open_schema(sink.format)
    known = {"subject": sink.registry_subject, "schema": digest(schema.text)}
    facts = outbox.position.facts
    if {name: facts.get(name) for name in known} == known:
        return FramedMessages(schema, facts["schema_id"])
    codec, thing = require_codec(sink.format), f"sink {sink.name!r}"
    schema_id = codec.register(schema, sink.registry_subject, context.settings, thing)
    outbox.remember({**known, "schema_id": schema_id})
    return FramedMessages(schema, schema_id)
