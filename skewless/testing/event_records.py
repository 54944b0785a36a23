"""The events of one source in a test: judged and deduplicated like those of a stream, and aggregated by the product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.keys import KeyValue
from skewless.contract.reads import build_window_read
from skewless.contract.rows import ViewRead
from skewless.contract.settings import Settings
from skewless.contract.window_events import EventSelector
from skewless.contract.windows.history import Timeline, WindowHistory
from skewless.contract.windows.state_layout import EventOrigins, partition_number
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.log.event_rows import EVENT_ID
from skewless.infra.log.log_columns import EVENT, REJECT
from skewless.infra.streams.decode import Decoder, convert_values
from skewless.infra.streams.event_ids import IdIndex, digest_ids
from skewless.testing.plain_values import json_row

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
