"""Compile Feast stream sources to the plan's event sources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from feast import FileSource, KafkaSource, PushSource, StreamFeatureView
from feast.data_format import AvroFormat, JsonFormat, ProtoFormat
from feast.data_source import KinesisSource

from skewless.contract.clock import parse_time
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.keys import KEY_DTYPES
from skewless.contract.windows.view import EventSource
from skewless.infra.definitions.compiler.event_columns import check_columns_exist, parse_columns, read_file_columns
from skewless.infra.definitions.compiler.views import (
    TAG_DELAY,
    check_source_kind,
    check_tags,
    parse_duration_us,
    source_path,
)
from skewless.infra.definitions.sources.source_schema import read_schema
from skewless.infra.reads.offline.sources import find_table

TAG_COLUMNS = "skewless.columns"
TAG_EVENT_ID = "skewless.event_id"
TAG_SCALE = "skewless.scale."  # followed by a column
TAG_DEDUPE = "skewless.dedupe"
TAG_EARLIEST = "skewless.earliest"
TAG_LATEST = "skewless.latest"
TAG_SUBJECT = "skewless.subject"
SOURCE_TAGS = (TAG_COLUMNS, TAG_EVENT_ID, TAG_SCALE, TAG_DELAY, TAG_DEDUPE, TAG_EARLIEST, TAG_LATEST, TAG_SUBJECT)

MOST_DIGITS = 12
_DEFAULT_DIGITS = {DType.FLOAT32: 6, DType.FLOAT64: 6}
_NUMBERS = frozenset({DType.INT32, DType.INT64, DType.FLOAT32, DType.FLOAT64})
BrokerSource: TypeAlias = KafkaSource | KinesisSource
_DIGITS = re.compile(r"\d{1,2}", re.ASCII)


def compile_source(view: StreamFeatureView, repo: Path) -> EventSource:
    """Return the event source of a windowed view.

    Raises:
        DefinitionError: the stream is of an unsupported kind, or its declaration is invalid.
    """
    stream: Any = view.stream_source
    if not isinstance(stream, BrokerSource | PushSource):
        raise DefinitionError(
            f"windowed view {view.name!r}",
            "has a source that is not a supported stream",
            value=type(view.source).__name__,
            fix="use a PushSource, a KafkaSource (extra 'kafka') or a KinesisSource (extra 'kinesis')",
        )
    owner = f"event source {stream.name!r}"
    return compile_stream(owner, stream, _event_column(owner, view, stream), repo)


def compile_stream(owner: str, stream: BrokerSource | PushSource, event_column: str, repo: Path) -> EventSource:
    """Return the event source of a stream whose event time is in ``event_column``.

    Raises:
        DefinitionError: the declaration of the stream is invalid.
    """
    tags = check_tags(owner, stream.tags, SOURCE_TAGS)
    location = _location(owner, stream, tags.get(TAG_SUBJECT, ""))
    history = _history(owner, stream.batch_source, event_column)
    columns = _columns(owner, repo, stream, tags, {event_column, history.created_timestamp_column})
    types = {column.name: column.dtype for column in columns}
    earliest, latest = _range(owner, tags)
    return EventSource(
        name=stream.name,
        **location,
        event_column=event_column,
        columns=columns,
        id_column=_id_column(owner, types, tags.get(TAG_EVENT_ID)),
        scales=default_scales(types) | declared_scales(owner, types, tags),
        history=source_path(history),
        created_column=history.created_timestamp_column or None,
        delay_us=parse_duration_us(owner, TAG_DELAY, tags),
        dedupe_us=parse_duration_us(owner, TAG_DEDUPE, tags, "1d"),
        earliest_us=earliest,
        latest_us=latest,
    )


def default_scales(types: Mapping[str, DType]) -> dict[str, int]:
    """Return the default number of decimal digits in sums, per number column."""
    return {name: _DEFAULT_DIGITS.get(dtype, 0) for name, dtype in types.items() if dtype in _NUMBERS}


def declared_scales(owner: str, types: Mapping[str, DType], tags: Mapping[str, str]) -> dict[str, int]:
    """Return the number of decimal digits in sums that tags declare, per column.

    Raises:
        DefinitionError: a column is unknown or not a number, or the digits are out of range.
    """
    texts = {tag.removeprefix(TAG_SCALE): text for tag, text in tags.items() if tag.startswith(TAG_SCALE)}
    check_columns_exist(f"{owner} tag {TAG_SCALE}COLUMN", types, list(texts))
    for name, text in texts.items():
        if types[name] not in _NUMBERS:
            raise DefinitionError(
                f"{owner} tag '{TAG_SCALE}{name}'",
                "is for a column that is not a number",
                value=str(types[name]),
                fix="remove the tag",
            )
        if not _DIGITS.fullmatch(text) or int(text) > MOST_DIGITS:
            raise DefinitionError(
                f"{owner} tag '{TAG_SCALE}{name}'",
                "is not a supported number of decimal digits",
                value=text,
                fix=f"use 0 to {MOST_DIGITS}: numbers are summed as 64-bit integers with so many decimal digits",
            )
    return {name: int(text) for name, text in texts.items()}


def _location(owner: str, stream: BrokerSource | PushSource, subject: str) -> dict[str, Any]:
    """Return kind, address and format of the stream, as fields of the source."""
    if isinstance(stream, PushSource):
        if subject:
            raise DefinitionError(owner, "is a push source and has a subject", value=subject, fix="remove it")
        return {"kind": "push"}
    kind, topic, servers, message_format = _place(stream)
    names = ("topic", "kafka_bootstrap_servers") if kind == "kafka" else ("stream_name", "region")
    formats: dict[type, dict[str, str]] = {
        JsonFormat: {"format": "json-schema", "subject": subject} if subject else {"format": "json"},
        AvroFormat: {"format": "avro", "subject": subject},
        ProtoFormat: {
            "format": "protobuf",
            "subject": subject,
            "message": getattr(message_format, "class_path", ""),
        },
    }
    if type(message_format) not in formats:
        raise DefinitionError(
            owner,
            "has messages of an unsupported format",
            value=type(message_format).__name__,
            fix='use JsonFormat(schema_json="..."), AvroFormat or ProtoFormat',
        )
    for name, value in zip(names, (topic, servers), strict=True):
        if not value:
            raise DefinitionError(owner, f"has no {name}", fix=f"set {name} of the {type(stream).__name__}")
    return {"kind": kind, "topic": topic, "servers": servers, **formats[type(message_format)]}


def _place(stream: BrokerSource) -> tuple[str, str, str, Any]:
    """Return kind, topic, servers and message format."""
    if isinstance(stream, KafkaSource):
        kafka = stream.kafka_options
        return "kafka", kafka.topic, kafka.kafka_bootstrap_servers, kafka.message_format
    kinesis = stream.kinesis_options
    return "kinesis", kinesis.stream_name, kinesis.region, kinesis.record_format


def _event_column(owner: str, view: StreamFeatureView, stream: BrokerSource | PushSource) -> str:
    own = stream.timestamp_field or view.timestamp_field
    if not own:
        raise DefinitionError(
            f"windowed view {view.name!r}",
            "has no timestamp_field",
            fix="set timestamp_field to the column with the event time",
        )
    if view.timestamp_field and view.timestamp_field != own:
        raise DefinitionError(
            f"windowed view {view.name!r}",
            f"has another timestamp_field than its {owner}",
            value=f"{view.timestamp_field} and {own}",
            fix="name the same column",
        )
    return own


def _history(owner: str, source: Any, event_column: str) -> Any:  # noqa: ANN401 - as readable_source
    """Return the source of earlier events; its columns must have the names of the stream's columns."""
    history = check_source_kind(owner, source)
    if history.timestamp_field != event_column:
        raise DefinitionError(
            f"{owner} batch_source",
            "has another timestamp_field than the stream",
            value=f"{history.timestamp_field} and {event_column}",
            fix="write the file with the stream's names",
        )
    if history.field_mapping:
        raise DefinitionError(
            f"{owner} batch_source",
            "renames columns, which is not supported for events",
            value=dict(history.field_mapping),
            fix="write the file with the stream's names and remove field_mapping",
        )
    return history


def _columns(
    owner: str, repo: Path, stream: BrokerSource | PushSource, tags: Mapping[str, str], without: set[str]
) -> tuple[Column, ...]:
    text = tags.get(TAG_COLUMNS) or _schema_text(stream)
    columns = parse_columns(owner, text) if text else _columns_of_history(owner, repo, stream.batch_source, without)
    for column in columns:
        if column.name in without:
            raise DefinitionError(
                f"{owner} column {column.name!r}",
                "is the event time or the created time, and declared as a column, too",
                fix="remove it from the columns: views can read the event time anyway",
            )
    return columns


def declares_columns(stream: BrokerSource | PushSource) -> bool:
    """Return whether a stream lists its columns itself, so that no file of its history is read for them."""
    return bool(stream.tags.get(TAG_COLUMNS) or _schema_text(stream))


def _schema_text(stream: BrokerSource | PushSource) -> str:
    if isinstance(stream, PushSource):
        return ""
    return str(getattr(_place(stream)[3], "schema_json", "") or "").strip()


def _columns_of_history(owner: str, repo: Path, source: Any, without: set[str]) -> tuple[Column, ...]:  # noqa: ANN401
    table = None
    if isinstance(source, FileSource):
        with suppress(SourceError):  # a stream without earlier events has no history file
            table = find_table(repo, source_path(source), f"history {source.path!r}")
    columns = () if table is None or table.is_text else read_file_columns(read_schema(table), sorted(without))
    if not columns:
        raise DefinitionError(
            owner,
            "does not declare the columns of its events",
            fix=f'set tags={{"{TAG_COLUMNS}": "name type, name type"}}',
        )
    return columns


def _id_column(owner: str, types: Mapping[str, DType], name: str | None) -> str | None:
    if name is None:
        return None
    check_columns_exist(f"{owner} tag {TAG_EVENT_ID!r}", types, [name])
    if types[name] not in KEY_DTYPES:
        raise DefinitionError(
            f"{owner} tag {TAG_EVENT_ID!r}",
            f"names a column of type {types[name]}, which cannot identify events",
            value=name,
            fix="use a string or an integer column",
        )
    return name


def _range(owner: str, tags: Mapping[str, str]) -> tuple[int, int]:
    earliest = _parse_date(owner, TAG_EARLIEST, tags.get(TAG_EARLIEST, "1970-01-01"))
    latest = _parse_date(owner, TAG_LATEST, tags.get(TAG_LATEST, "2200-01-01"))
    if earliest >= latest:
        raise DefinitionError(
            f"{owner} tag {TAG_LATEST!r}", f"is not after {TAG_EARLIEST!r}", fix="give a later date, or remove one"
        )
    return earliest, latest


def _parse_date(owner: str, tag: str, text: str) -> int:
    parsed = parse_time(text)
    if parsed is None:
        raise DefinitionError(f"{owner} tag {tag!r}", "is not a date", value=text, fix="write it as 2024-01-31")
    return parsed[0]
