"""Feast stream sources to the plan's event sources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feast import FileSource, KafkaSource, PushSource, StreamFeatureView
from feast.data_format import JsonFormat

from skewless.contract.clock import parse_time
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.keys import KEY_DTYPES
from skewless.contract.windows.view import EventSource
from skewless.infra.compiler.event_columns import check_known, columns_of_file, parse_columns
from skewless.infra.compiler.views import TAG_DELAY, known_tags, length_us, readable_source, source_path
from skewless.infra.offline.sources import Table, find_table
from skewless.infra.sources.source_schema import read_schema

TAG_COLUMNS = "skewless.columns"
TAG_EVENT_ID = "skewless.event_id"
TAG_SCALE = "skewless.scale."  # followed by a column
TAG_DEDUPE = "skewless.dedupe"
TAG_EARLIEST = "skewless.earliest"
TAG_LATEST = "skewless.latest"
SOURCE_TAGS = (TAG_COLUMNS, TAG_EVENT_ID, TAG_SCALE, TAG_DELAY, TAG_DEDUPE, TAG_EARLIEST, TAG_LATEST)

MOST_DIGITS = 12
_DEFAULT_DIGITS = {DType.FLOAT32: 6, DType.FLOAT64: 6}
_NUMBERS = frozenset({DType.INT32, DType.INT64, DType.FLOAT32, DType.FLOAT64})
_DIGITS = re.compile(r"\d{1,2}", re.ASCII)


def compile_source(view: StreamFeatureView, repo: Path) -> EventSource:
    """Return the plan's form of the stream that a windowed view reads.

    Raises:
        DefinitionError: the stream is of a kind or shape that cannot be read.
    """
    stream: Any = view.stream_source
    if not isinstance(stream, KafkaSource | PushSource):
        raise DefinitionError(
            f"windowed view {view.name!r}",
            "has a source that is no stream we can read",
            value=type(view.source).__name__,
            fix="use a PushSource or a KafkaSource",
        )
    owner = f"event source {stream.name!r}"
    return compile_stream(owner, stream, _event_column(owner, view, stream), repo)


def compile_stream(owner: str, stream: KafkaSource | PushSource, event_column: str, repo: Path) -> EventSource:
    """Return the plan's form of a stream whose events have their time in ``event_column``.

    Raises:
        DefinitionError: the stream is of a shape that cannot be read.
    """
    tags = known_tags(owner, stream.tags, SOURCE_TAGS)
    place = _place(owner, stream)
    history = _history(owner, stream.batch_source, event_column)
    columns = _columns(owner, repo, stream, tags, {event_column, history.created_timestamp_column})
    types = {column.name: column.dtype for column in columns}
    earliest, latest = _range(owner, tags)
    return EventSource(
        name=stream.name,
        **place,
        event_column=event_column,
        columns=columns,
        id_column=_id_column(owner, types, tags.get(TAG_EVENT_ID)),
        scales=default_scales(types) | declared_scales(owner, types, tags),
        history=source_path(history),
        created_column=history.created_timestamp_column or None,
        delay_us=length_us(owner, TAG_DELAY, tags),
        dedupe_us=length_us(owner, TAG_DEDUPE, tags, "1d"),
        earliest_us=earliest,
        latest_us=latest,
    )


def add_source(found: dict[str, EventSource], source: EventSource) -> None:
    """Add the source of one more view to those that were found.

    Raises:
        DefinitionError: another view reads a source of this name that is declared otherwise.
    """
    if found.setdefault(source.name, source) != source:
        raise DefinitionError(f"event source {source.name!r}", "is defined twice", fix="rename or remove one of them")


def default_scales(types: Mapping[str, DType]) -> dict[str, int]:
    """Return how many decimal digits are kept of number columns of which nothing is said."""
    return {name: _DEFAULT_DIGITS.get(dtype, 0) for name, dtype in types.items() if dtype in _NUMBERS}


def declared_scales(owner: str, types: Mapping[str, DType], tags: Mapping[str, str]) -> dict[str, int]:
    """Return the decimal digits that tags declare, per column.

    Raises:
        DefinitionError: a column is unknown or no number, or the digits are none that can be kept.
    """
    texts = {tag.removeprefix(TAG_SCALE): text for tag, text in tags.items() if tag.startswith(TAG_SCALE)}
    check_known(f"{owner} tag {TAG_SCALE}COLUMN", types, list(texts))
    for name, text in texts.items():
        if types[name] not in _NUMBERS:
            raise DefinitionError(
                f"{owner} tag '{TAG_SCALE}{name}'",
                "asks for decimal digits of a column that has none",
                value=str(types[name]),
                fix="remove the tag",
            )
        if not _DIGITS.fullmatch(text) or int(text) > MOST_DIGITS:
            raise DefinitionError(
                f"{owner} tag '{TAG_SCALE}{name}'",
                "is not a number of decimal digits that sums can keep",
                value=text,
                fix=f"use 0 to {MOST_DIGITS}: numbers are summed as 64-bit integers of that many digits",
            )
    return {name: int(text) for name, text in texts.items()}


def _place(owner: str, stream: KafkaSource | PushSource) -> dict[str, Any]:
    """Return where the events come from, as fields of the source."""
    if isinstance(stream, PushSource):
        return {"kind": "push"}
    options = stream.kafka_options
    if not isinstance(options.message_format, JsonFormat):
        raise DefinitionError(
            owner,
            "has messages of a format that cannot be read",
            value=type(options.message_format).__name__,
            fix='use JsonFormat(schema_json="...")',
        )
    for name, value in (("topic", options.topic), ("kafka_bootstrap_servers", options.kafka_bootstrap_servers)):
        if not value:
            raise DefinitionError(owner, f"has no {name}", fix=f"give the KafkaSource its {name}")
    return {"kind": "kafka", "topic": options.topic, "servers": options.kafka_bootstrap_servers}


def _event_column(owner: str, view: StreamFeatureView, stream: KafkaSource | PushSource) -> str:
    own = stream.timestamp_field or view.timestamp_field
    if not own:
        raise DefinitionError(
            f"windowed view {view.name!r}", "has no timestamp_field", fix="name the column that says when it happened"
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
    """Return the table of earlier events, which must have the columns of the stream under their names."""
    history = readable_source(owner, source)
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
            "renames columns, which events of one source cannot have",
            value=dict(history.field_mapping),
            fix="write the file with the stream's names and remove field_mapping",
        )
    return history


def _columns(
    owner: str, repo: Path, stream: KafkaSource | PushSource, tags: Mapping[str, str], without: set[str]
) -> tuple[Column, ...]:
    text = tags.get(TAG_COLUMNS) or _schema_text(stream)
    columns = parse_columns(owner, text) if text else _columns_of_history(owner, repo, stream.batch_source, without)
    for column in columns:
        if column.name in without:
            raise DefinitionError(
                f"{owner} column {column.name!r}",
                "is declared, though it is the time of the event or of its row",
                fix="leave it out of the columns: views may read the time of an event without that",
            )
    return columns


def declares_columns(stream: KafkaSource | PushSource) -> bool:
    """Return whether a stream lists its columns itself, so that no file of its history is read for them."""
    return bool(stream.tags.get(TAG_COLUMNS) or _schema_text(stream))


def _schema_text(stream: KafkaSource | PushSource) -> str:
    text = getattr(stream.kafka_options.message_format, "schema_json", "") if isinstance(stream, KafkaSource) else ""
    return str(text or "").strip()


def _columns_of_history(owner: str, repo: Path, source: Any, without: set[str]) -> tuple[Column, ...]:  # noqa: ANN401
    table = _files(repo, source) if isinstance(source, FileSource) else None
    columns = () if table is None or table.is_text else columns_of_file(read_schema(table), sorted(without))
    if not columns:
        raise DefinitionError(
            owner,
            "does not say what columns its events have",
            fix=f'give it tags={{"{TAG_COLUMNS}": "name type, name type"}}',
        )
    return columns


def _files(repo: Path, source: FileSource) -> Table | None:
    try:
        return find_table(repo, source_path(source), f"history {source.path!r}")
    except SourceError:  # there may be no event yet
        return None


def _id_column(owner: str, types: Mapping[str, DType], name: str | None) -> str | None:
    if name is None:
        return None
    check_known(f"{owner} tag {TAG_EVENT_ID!r}", types, [name])
    if types[name] not in KEY_DTYPES:
        raise DefinitionError(
            f"{owner} tag {TAG_EVENT_ID!r}",
            f"names a column of type {types[name]}, which cannot tell events apart",
            value=name,
            fix="use a string or an integer column",
        )
    return name


def _range(owner: str, tags: Mapping[str, str]) -> tuple[int, int]:
    earliest = _moment(owner, TAG_EARLIEST, tags.get(TAG_EARLIEST, "1970-01-01"))
    latest = _moment(owner, TAG_LATEST, tags.get(TAG_LATEST, "2200-01-01"))
    if earliest >= latest:
        raise DefinitionError(
            f"{owner} tag {TAG_LATEST!r}", f"is not after {TAG_EARLIEST!r}", fix="give a later date, or remove one"
        )
    return earliest, latest


def _moment(owner: str, tag: str, text: str) -> int:
    found = parse_time(text)
    if found is None:
        raise DefinitionError(f"{owner} tag {tag!r}", "is not a date", value=text, fix="write it as 2024-01-31")
    return found[0]
