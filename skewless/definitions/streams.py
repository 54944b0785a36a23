"""Streams of events."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

from feast import KafkaSource, PushSource
from feast.data_format import JsonFormat

from skewless.definitions.tag_arguments import (
    BatchSource,
    ColumnType,
    all_tags,
    duration_tags,
    named_arguments,
    scale_tags,
    text_tags,
)
from skewless.infra.compiler.event_columns import columns_text, date_text
from skewless.infra.compiler.event_sources import (
    TAG_COLUMNS,
    TAG_DEDUPE,
    TAG_EARLIEST,
    TAG_EVENT_ID,
    TAG_LATEST,
    compile_stream,
    declares_columns,
)
from skewless.infra.compiler.views import TAG_DELAY

EventStream = PushSource | KafkaSource


def event_source(
    name: str,
    *,
    history: BatchSource,
    columns: Mapping[str, ColumnType] | None = None,
    event_id: str | None = None,
    scales: Mapping[str, int] | None = None,
    dedupe: timedelta | None = None,
    delay: timedelta | None = None,
    earliest: date | None = None,
    latest: date | None = None,
    description: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> PushSource:
    """Return a Feast ``PushSource``: a stream whose events are sent to skewless over HTTP or through Redis.

    Args:
        name: of the stream.
        history: the table of earlier events, with the stream's columns; its ``timestamp_field`` is the event time.
        columns: name -> type, without the event time; None: those of the history's Parquet files.
        event_id: column whose value identifies an event, so that it counts once; None: each message counts.
        scales: column -> decimal digits that sums keep, 0 to 12; others: 6 for floats, 0 for integers.
        dedupe: how long an event id is remembered; None: one day.
        delay: how long after its time an event of the history was known, where it has no created time; None: at once.
        earliest: events before it are rejected; None: 1970-01-01.
        latest: events from it on are rejected; None: 2200-01-01.
        description: for people.
        owner: for people.
        tags: further tags of your own.

    Raises:
        DefinitionError: an argument is wrong.
    """
    thing = f"event source {name!r}"
    with named_arguments():
        lengths = {TAG_DEDUPE: dedupe, TAG_DELAY: delay}
        days = {TAG_EARLIEST: earliest, TAG_LATEST: latest}
        own = _source_tags(thing, columns, event_id, lengths, days) | scale_tags(scales)
        stream = PushSource(
            name=name,
            batch_source=history,
            description=description,
            owner=owner,
            tags=all_tags(thing, tags, own),
        )
        _check_stream(thing, stream, history.timestamp_field)
    return stream


def kafka_event_source(
    name: str,
    *,
    topic: str,
    servers: str,
    timestamp_field: str,
    history: BatchSource,
    columns: Mapping[str, ColumnType],
    event_id: str | None = None,
    scales: Mapping[str, int] | None = None,
    dedupe: timedelta | None = None,
    delay: timedelta | None = None,
    earliest: date | None = None,
    latest: date | None = None,
    description: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> KafkaSource:
    """Return a Feast ``KafkaSource``: a topic with one JSON object per message.

    Args:
        name: of the stream.
        topic: of Kafka.
        servers: of Kafka, as ``host:port,host:port``.
        timestamp_field: field with the event time.
        history: as for ``event_source``, like the arguments that follow.
        columns: name -> type, without the event time.
        event_id: column whose value identifies an event.
        scales: column -> decimal digits that sums keep.
        dedupe: how long an event id is remembered.
        delay: how long after its time an event of the history was known.
        earliest: events before it are rejected.
        latest: events from it on are rejected.
        description: for people.
        owner: for people.
        tags: further tags of your own.

    Raises:
        DefinitionError: an argument is wrong.
    """
    thing = f"event source {name!r}"
    with named_arguments():
        lengths = {TAG_DEDUPE: dedupe, TAG_DELAY: delay}
        days = {TAG_EARLIEST: earliest, TAG_LATEST: latest}
        own = _source_tags(thing, columns, event_id, lengths, days) | scale_tags(scales)
        stream = KafkaSource(
            name=name,
            timestamp_field=timestamp_field,
            message_format=JsonFormat(schema_json=""),
            kafka_bootstrap_servers=servers,
            topic=topic,
            batch_source=history,
            description=description,
            owner=owner,
            tags=all_tags(thing, tags, own),
        )
        _check_stream(thing, stream, timestamp_field)
    return stream


def event_column(stream: EventStream) -> str:
    """Return the column with the event time: the stream's own, else that of its history."""
    return stream.timestamp_field or (stream.batch_source.timestamp_field if stream.batch_source else "")


def _source_tags(
    thing: str,
    columns: Mapping[str, ColumnType] | None,
    event_id: str | None,
    lengths: Mapping[str, timedelta | None],
    days: Mapping[str, date | None],
) -> dict[str, str]:
    tags = duration_tags(thing, lengths) | text_tags({TAG_EVENT_ID: event_id})
    if columns is not None:
        tags[TAG_COLUMNS] = columns_text(f"{thing} tag {TAG_COLUMNS!r}", columns)
    return tags | {tag: date_text(f"{thing} tag {tag!r}", day) for tag, day in days.items() if day is not None}


def _check_stream(thing: str, stream: EventStream, event_column: str) -> None:
    # Without declared columns only the compiler, which knows the project's folder, can read them from the history.
    if declares_columns(stream):
        compile_stream(thing, stream, event_column, Path())
