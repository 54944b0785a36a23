"""The events and rows of a test: judged, packed, aggregated and read as the product does, and shown to a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
import orjson
import pyarrow as pa

from skewless.contract.arrow_numbers import find_nulls
from skewless.contract.clock import from_us, parse_time, to_us
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.keys import KeyValue
from skewless.contract.plan import View
from skewless.contract.reads import build_window_read
from skewless.contract.rows import NO_TIME, RANK_BYTES, RowCodec, Versions, ViewRead
from skewless.contract.settings import Settings
from skewless.contract.window_events import EventSelector
from skewless.contract.windows.history import Timeline, WindowHistory
from skewless.contract.windows.state_layout import EventOrigins, partition_number
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.ingest.streams.decode import Decoder, convert_values
from skewless.infra.ingest.streams.event_ids import IdIndex, digest_ids
from skewless.infra.log.log_columns import EVENT, EVENT_ID, REJECT
from skewless.infra.reads.offline import arrays

TimeValue: TypeAlias = datetime | str | int


def time_us(thing: str, value: TimeValue) -> int:
    """Return a time as microseconds since 1970; a time without a zone is UTC.

    >>> time_us("at", "1970-01-01T00:00:01Z")
    1000000

    Raises:
        DefinitionError: it is not a time.
    """
    if isinstance(value, datetime):
        return to_us(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    parsed = parse_time(value) if isinstance(value, str) else None
    if parsed is None:
        raise DefinitionError(thing, "is not a time", value=value, fix="write it as 2026-01-31T12:00:00Z")
    return parsed[0]


def json_value(value: object) -> object:
    """Return a value as JSON could bring it: times as microseconds, numbers of numpy as Python's."""
    if isinstance(value, datetime):
        return to_us(value)
    return value.item() if isinstance(value, np.generic) else value


def json_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose values are as JSON could bring them."""
    return {name: json_value(value) for name, value in row.items()}


def time_text(moment_us: int) -> str:
    """Return a time as a person reads it.

    >>> time_text(1_500_000)
    '1970-01-01T00:00:01.500000Z'
    """
    return from_us(moment_us).isoformat().replace("+00:00", "Z")


def row_text(row: Mapping[str, Any]) -> str:
    """Return the values of a row in one line.

    >>> row_text({"card": 7, "amount": None})
    'card=7 amount=null'
    """
    return " ".join(f"{name}={'null' if value is None else value}" for name, value in row.items())


_PARTITION = partition_number("test")


@dataclass(frozen=True, kw_only=True)
class GivenEvent:
    """One accepted event.

    Args:
        row: its log row, a table of one row.
        ts: event time, microseconds.
        known_us: when it was accepted, microseconds.
    """

    row: pa.Table
    ts: int
    known_us: int

    @property
    def event_id(self) -> str | None:
        """Return the id that identifies it, if its source has one."""
        value: str | None = self.row[EVENT_ID][0].as_py()
        return value


class EventRecords:
    """The events of one source.

    Args:
        source: of the plan.
        views: the windowed views that read it.
    """

    def __init__(self, source: EventSource, views: Sequence[WindowView]) -> None:
        self.source = source
        self._decoder = Decoder(source, views, int(Settings.model_fields["event_bytes"].default))
        self._time = Column(name=source.event_column, dtype=DType.TIMESTAMP)
        self._events: list[GivenEvent] = []

    def add(self, event: Mapping[str, Any], known_us: int | None) -> None:
        """Accept one event.

        Raises:
            SourceError: a stream would reject it.
        """
        given, reason = self._judged(event, known_us)
        if reason is not None:
            raise SourceError(
                f"event of source {self.source.name!r}",
                f"would be rejected: {reason}",
                value=dict(event),
                fix="correct the event, or test the reason with features.rejection(...)",
            )
        self._events.append(given)

    def rejection(self, event: Mapping[str, Any], known_us: int | None) -> str | None:
        """Return why a stream would reject an event; None: it would accept it."""
        return self._judged(event, known_us)[1]

    def known_at(self, t: int) -> list[GivenEvent]:
        """Return the events that count once and were accepted by time ``t``, in the order of acceptance."""
        index, events = IdIndex(self.source.dedupe_us), []
        for event in sorted(self._events, key=lambda item: item.known_us):
            if event.known_us > t:
                break
            if event.event_id is not None:
                digests = digest_ids([event.event_id])
                if index.find_known(digests, event.known_us)[0]:
                    continue
                index.add(digests, event.known_us)
            events.append(event)
        return events

    def given(self) -> list[GivenEvent]:
        """Return all events, in the order in which they were given."""
        return list(self._events)

    def _judged(self, event: Mapping[str, Any], known_us: int | None) -> tuple[GivenEvent, str | None]:
        plain = json_row(event)
        if known_us is None:
            times, _ = convert_values(self._time, [plain.get(self.source.event_column)])
            known_us = times[0].as_py() or 0
        rows = self._decoder.decode([orjson.dumps(plain)], [0], known_us)
        reason: str | None = rows[REJECT][0].as_py()
        return GivenEvent(row=rows, ts=rows[EVENT][0].as_py(), known_us=known_us), reason


class WindowReads:
    """The features of one windowed view from the events of a test."""

    def __init__(self, view: WindowView, records: EventRecords) -> None:
        self.view, self.records = view, records
        self._lens = EventSelector(view)
        self._history = WindowHistory(view)

    def read(self, key: Sequence[KeyValue | None], t: int) -> ViewRead:
        """Return what the view holds for one entity at time ``t``, microseconds."""
        times = np.array([t], dtype=np.int64)
        events = self.records.known_at(t)
        features = self._history.empty_features()[None, :]
        if events:
            seen = self._lens.select(pa.concat_tables([event.row for event in events]), _origin(events))
            own = np.array([i for i, row in enumerate(_keys(seen.keys)) if row == tuple(key)], dtype=np.int64)
            seen = seen.take(own)
            entity = np.zeros(len(own), dtype=np.int64)
            timeline = Timeline.from_events(1, entity, seen.origin, seen.words, seen.hashes)
            features = self._history.features(timeline, np.zeros(1, dtype=np.int64), times)
        return build_window_read(self.view, features, times, has_key=np.array([None not in key]))

    def counted(self, key: Sequence[KeyValue | None], t: int) -> list[GivenEvent]:
        """Return the events of one entity that its windows may hold at time ``t``, whatever their length."""
        events = [event for event in self.records.known_at(t) if event.ts < t]
        if not events:
            return []
        seen = self._lens.select(pa.concat_tables([event.row for event in events]), _origin(events))
        return [events[row] for row, own in zip(seen.rows.tolist(), _keys(seen.keys), strict=True) if own == tuple(key)]

    def of_entity(self, key: Sequence[KeyValue | None]) -> list[GivenEvent]:
        """Return all given events of one entity, whether or not they count."""
        names = [column.name for column in self.view.keys]
        return [event for event in self.records.given() if _keys(event.row.select(names)) == [tuple(key)]]


def _origin(events: Sequence[GivenEvent]) -> EventOrigins:
    n = len(events)
    return EventOrigins(
        ts=np.array([event.ts for event in events], dtype=np.int64),
        partition=np.full(n, _PARTITION, dtype=np.int64),
        seq=np.arange(n, dtype=np.int64),
    )


def _keys(keys: pa.Table) -> list[tuple[KeyValue | None, ...]]:
    return list(zip(*(keys[name].to_pylist() for name in keys.column_names), strict=True))


@dataclass(frozen=True, kw_only=True)
class GivenRow:
    """One row of a view.

    Args:
        values: as the test gave them.
        key: in the plan's types.
        event_us: event time, microseconds.
        known_us: from when on it is known, microseconds.
        packed: as the online store holds it.
    """

    values: Mapping[str, Any]
    key: tuple[KeyValue | None, ...]
    event_us: int
    known_us: int
    packed: bytes


class RowRecords:
    """The rows of one view."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.rows: list[GivenRow] = []
        self._codec = RowCodec(view)

    def add(self, row: Mapping[str, Any], known_us: int | None) -> None:
        """Accept one row: keys, features, event time and, where the source has them, created time and tombstone.

        Args:
            row: features that are not given are null.
            known_us: before which the row is unknown, however early it was due; None: known when it is due.

        Raises:
            SourceError: the row has an unknown column, no event time, or a value of another type.
        """
        plain, source = json_row(row), self.view.source
        self._check_names(plain)
        event_us = self._value(Column(name=source.event_column, dtype=DType.TIMESTAMP), plain)
        if event_us is None:
            raise self._refusal(f"has no {source.event_column}", row, f"give the row its {source.event_column}")
        created_us = None
        if source.created_column is not None:
            created_us = self._value(Column(name=source.created_column, dtype=DType.TIMESTAMP), plain)
        deleted = source.tombstone_column is not None and plain.get(source.tombstone_column) is True
        due = max(event_us, event_us + self.view.delay_us if created_us is None else created_us)
        self.rows.append(
            GivenRow(
                values=dict(row),
                key=tuple(self._value(column, plain) for column in self.view.keys),
                event_us=event_us,
                known_us=due if known_us is None else max(due, known_us),
                packed=self._packed(plain, event_us, created_us, deleted=deleted),
            )
        )

    def read(self, key: Sequence[KeyValue | None], t: int) -> ViewRead:
        """Return what the view holds for one entity at time ``t``, microseconds."""
        winner = self.winner(key, t)
        return self._codec.decode([None if winner is None else winner.packed])

    def winner(self, key: Sequence[KeyValue | None], t: int) -> GivenRow | None:
        """Return the row of the highest rank among an entity's rows that are known at time ``t``."""
        rows = [row for row in self.of_entity(key) if row.known_us <= t]
        return max(rows, key=lambda row: row.packed[:RANK_BYTES], default=None)

    def of_entity(self, key: Sequence[KeyValue | None]) -> list[GivenRow]:
        """Return all rows of one entity; a key with a null has none."""
        return [] if None in key else [row for row in self.rows if row.key == tuple(key)]

    def _packed(self, row: Mapping[str, Any], event_us: int, created_us: int | None, *, deleted: bool) -> bytes:
        features = {column.name: self._array(column, row) for column in self.view.features}
        versions = Versions(
            event_ts=np.array([event_us], dtype=np.int64),
            created_ts=np.array([NO_TIME if created_us is None else created_us], dtype=np.int64),
            seq=np.array([len(self.rows)], dtype=np.int64),
            run_id=np.zeros(1, dtype=np.int64),
            tombstone=np.array([deleted]),
        )
        values = {column.name: arrays.to_numpy(features[column.name], column.dtype) for column in self.view.features}
        nulls = {name: find_nulls(column) for name, column in features.items()}
        return self._codec.encode(versions, values, nulls)[0]

    def _value(self, column: Column, row: Mapping[str, Any]) -> Any:  # noqa: ANN401 - of the column's type
        return self._array(column, row)[0].as_py()

    def _array(self, column: Column, row: Mapping[str, Any]) -> pa.ChunkedArray:
        array, problems = convert_values(column, [row.get(column.name)])
        if problems:
            raise self._refusal(problems[0], row, "correct the value")
        return pa.chunked_array([array])

    def _check_names(self, row: Mapping[str, Any]) -> None:
        source = self.view.source
        columns = [column.name for column in (*self.view.keys, *self.view.features)]
        columns += [name for name in (source.event_column, source.created_column, source.tombstone_column) if name]
        for name in row:
            if name not in columns:
                raise self._refusal(f"has an unknown column {name!r}", row, f"use {', '.join(columns)}")

    def _refusal(self, problem: str, row: Mapping[str, Any], fix: str) -> SourceError:
        return SourceError(f"row of view {self.view.name!r}", problem, value=dict(row), fix=fix)
