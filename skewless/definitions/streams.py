"""Streams of events, and windowed views over them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from types import FunctionType
from typing import Literal, cast

from feast import Entity, KafkaSource, PushSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.data_format import AvroFormat, JsonFormat, ProtoFormat, StreamFormat

from skewless.contract.errors import DefinitionError
from skewless.contract.windows.view import EventFormat
from skewless.definitions.tag_arguments import (
    BatchSource,
    ColumnFunction,
    ColumnType,
    all_tags,
    duration_tags,
    named_arguments,
    scale_tags,
    text_tags,
)
from skewless.infra.definitions.compiler.event_columns import columns_text, date_text, names_text
from skewless.infra.definitions.compiler.event_sources import (
    TAG_COLUMNS,
    TAG_DEDUPE,
    TAG_EARLIEST,
    TAG_EVENT_ID,
    TAG_LATEST,
    TAG_SUBJECT,
    BrokerSource,
    compile_stream,
    declares_columns,
)
from skewless.infra.definitions.compiler.services import TAG_DERIVED, TAG_INPUTS, TAG_WHERE
from skewless.infra.definitions.compiler.views import TAG_DELAY, TAG_FRESHNESS, TAG_MAX_AGE
from skewless.infra.definitions.compiler.windows import TAG_DISTINCT, compile_windows

EventStream = PushSource | BrokerSource


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
    format: EventFormat = "json",  # noqa: A002 - the field's word
    subject: str | None = None,
    message: str | None = None,
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
    """Return a Feast ``KafkaSource``: a topic with one event per message.

    Args:
        name: of the stream.
        topic: of Kafka.
        servers: of Kafka, as ``host:port,host:port``.
        timestamp_field: field with the event time.
        history: as for ``event_source``.
        columns: name -> type, without the event time.
        format: of a message: a JSON object, or JSON, Avro or Protobuf with the id of its schema in the registry.
        subject: of the schemas in the registry; None: ``TOPIC-value``.
        message: full name of the Protobuf message; None: the first of its file.
        event_id: column whose value identifies an event.
        scales: column -> decimal digits that sums keep.
        dedupe, delay, earliest, latest: as for ``event_source``, like the arguments that follow.
        description, owner, tags: for people.

    Raises:
        DefinitionError: an argument is wrong.
    """
    thing = f"event source {name!r}"
    with named_arguments():
        lengths = {TAG_DEDUPE: dedupe, TAG_DELAY: delay}
        days = {TAG_EARLIEST: earliest, TAG_LATEST: latest}
        own = _source_tags(thing, columns, event_id, lengths, days)
        own |= scale_tags(scales) | text_tags({TAG_SUBJECT: _subject(format, topic, subject)})
        stream = KafkaSource(
            name=name,
            timestamp_field=timestamp_field,
            message_format=_message_format(thing, format, subject, message),
            kafka_bootstrap_servers=servers,
            topic=topic,
            batch_source=history,
            description=description,
            owner=owner,
            tags=all_tags(thing, tags, own),
        )
        _check_stream(thing, stream, timestamp_field)
    return stream


def _subject(name: str, topic: str, subject: str | None) -> str | None:
    # Feast has one format for JSON: a subject tells JSON with a schema from plain JSON.
    return f"{topic}-value" if subject is None and name == "json-schema" else subject


def _message_format(thing: str, name: str, subject: str | None, message: str | None) -> StreamFormat:
    formats: dict[str, StreamFormat] = {
        "json": JsonFormat(schema_json=""),
        "json-schema": JsonFormat(schema_json=""),
        "avro": AvroFormat(schema_json=""),
        "protobuf": ProtoFormat(class_path=message or ""),
    }
    if name not in formats:
        raise DefinitionError(thing, "has an unknown format", value=name, fix=f"use one of: {', '.join(formats)}")
    unused = {"subject": subject if name == "json" else None, "message": message if name != "protobuf" else None}
    for argument, value in unused.items():
        if value is not None:
            raise DefinitionError(thing, f"has no {argument} in the format {name!r}", value=value, fix="remove it")
    return formats[name]


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


AggregateFunction = Literal["count", "sum", "mean", "var", "std", "min", "max", "first", "last", "count_distinct"]


def aggregate(
    function: AggregateFunction,
    column: str,
    window: timedelta,
    *,
    k: int | None = None,
    name: str | None = None,
    hop: timedelta | None = None,
) -> Aggregation:
    """Return a Feast ``Aggregation``: one feature of a windowed view, or ``k`` features of a sequence.

    Args:
        function: of the column's values in the window.
        column: of the event, or derived; count a key to count events.
        window: length of the window, which ends at the prediction.
        k: of ``first`` and ``last``: the first values, earliest first, or the last values, latest first, as
            the features ``NAME_1`` to ``NAME_k``, 1 to 32; null where there are fewer. None: one value.
        name: of the feature; None: Feast's, such as ``sum_amount_3600s``.
        hop: step in which the window's beginning moves; None: chosen by the window's length.
    """
    full_name = function if k is None else f"{function}_{k}"
    return Aggregation(column=column, function=full_name, time_window=window, slide_interval=hop, name=name)


def windowed_view(
    name: str,
    *,
    entities: Sequence[Entity],
    source: EventStream,
    aggregations: Sequence[Aggregation],
    transform: ColumnFunction | None = None,
    inputs: Sequence[str] | None = None,
    derived: Mapping[str, ColumnType] | None = None,
    where: str | None = None,
    scales: Mapping[str, int] | None = None,
    distinct: int | None = None,
    freshness: timedelta | None = None,
    max_age: timedelta | None = None,
    description: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> StreamFeatureView:
    """Return a Feast ``StreamFeatureView``: aggregates of a stream's events over time windows.

    Args:
        name: of the view.
        entities: whose join keys, columns of the stream, together are its key.
        source: the stream.
        aggregations: its features, see ``aggregate``.
        transform: function of a module that imports numpy only, from columns of events to derived columns.
        inputs: columns that ``transform`` reads; None: all of the stream and the event time.
        derived: name -> type of the columns that ``transform`` returns.
        where: boolean column, derived or not; only events with true count; None: all.
        scales: column -> decimal digits that sums keep; they replace those of the stream.
        distinct: number of values up to which ``count_distinct`` is exact, 2 to 4096; None: 256.
        freshness: age of the watermark from which features are flagged ``stale``; None: 1 minute, 0: never.
        max_age: age of the watermark from which the view is unavailable; None: never.
        description: for people, as ``owner``.
        owner: team or person.
        tags: further tags of your own.

    Raises:
        DefinitionError: an argument is wrong, or the view cannot be computed exactly.
    """
    thing = f"windowed view {name!r}"
    with named_arguments(), _quiet_feast():
        own = _function_tags(thing, inputs, derived, where) | scale_tags(scales)
        own |= duration_tags(thing, {TAG_FRESHNESS: freshness, TAG_MAX_AGE: max_age})
        own |= text_tags({TAG_DISTINCT: None if distinct is None else str(distinct)})
        view = StreamFeatureView(
            name=name,
            entities=list(entities),
            source=source,
            timestamp_field=event_column(source),
            aggregations=list(aggregations),
            mode="python",
            udf=cast("FunctionType | None", transform),
            description=description,
            owner=owner,
            tags=all_tags(thing, tags, own),
        )
        if declares_columns(source):  # else only the compiler, which knows the project's folder, can read them
            compile_windows(Path(), [view], {entity.name: entity for entity in entities})
    return view


@contextmanager
def _quiet_feast() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Stream feature views are experimental")
        yield


def _function_tags(
    thing: str, inputs: Sequence[str] | None, derived: Mapping[str, ColumnType] | None, where: str | None
) -> dict[str, str]:
    tags = text_tags({TAG_WHERE: where})
    if inputs is not None:
        tags[TAG_INPUTS] = names_text(f"{thing} tag {TAG_INPUTS!r}", inputs)
    if derived is not None:
        tags[TAG_DERIVED] = columns_text(f"{thing} tag {TAG_DERIVED!r}", derived)
    return tags
