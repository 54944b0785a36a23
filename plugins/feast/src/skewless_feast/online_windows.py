"""Windowed views online for Feast: features from states at the time of a request, and pushed frames as events."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.protos.feast.types.Value_pb2 import Value

from skewless.contract.arrow_types import cast_times
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError, StoreError
from skewless.contract.rows import ViewRead
from skewless.contract.settings import Settings
from skewless.contract.status import StatusArray, row_status
from skewless.contract.windows.hops import MILLISECOND
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.ingest.streams.port import EventSender
from skewless.infra.ingest.streams.redis_link import open_sender
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.window_states import WindowStates
from skewless_feast.connections import Connections
from skewless_feast.online_results import (
    Markers,
    Rows,
    ViewRequest,
    check_join_keys,
    select_features,
)
from skewless_feast.stored_views import Table, WindowPlans
from skewless_feast.values import parse_keys

_REFRESH_S = 0.5  # time between two reads of the current generations
_INTEGERS = frozenset({DType.INT32, DType.INT64, DType.TIMESTAMP})


@dataclass(kw_only=True)
class _CachedView:
    """A view with its state reader, cached between requests.

    Args:
        refresh_at: when to read the current generation again, on the monotonic clock.
    """

    states: WindowStates
    history: MarkerHistory
    refresh_at: float = 0.0


class OnlineWindows:
    """The windowed views of a project; threads may share it.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: ProjectState) -> None:
        self._state = state
        self._plans = WindowPlans(state)
        self._cached: dict[str, _CachedView] = {}
        self._lock = threading.Lock()

    def build_request(
        self, reader: Connections, table: Table, names: Sequence[str] | None, columns: Mapping[str, Sequence[Value]]
    ) -> ViewRequest:
        """Return the part of a request for a view.

        Args:
            names: the features, in any order; None: all features.
            columns: the entities' keys, by join key.

        Raises:
            StalePlanError: the applied plan has no such view.
            RequestError: a feature is unknown, a join key is missing, or has a value of another type.
            StoreError: the store is unreachable.
        """
        view = self._plans.view(table, names or ())
        check_join_keys(table, view.keys, columns)
        values = parse_keys(view.keys, columns)
        n = len(next(iter(values.values())))
        with self._lock:
            cached = self._get(view, reader)
            # A backfill replaces the generation: read its pointer again from time to time, not for each request.
            if time.monotonic() > cached.refresh_at:
                cached.states.load_generations(reader.reader.get(cached.states.pointers))
                cached.refresh_at = time.monotonic() + _REFRESH_S
            # Under the same lock: a refresh in between would pair keys of one generation with markers of another.
            keys, markers = cached.states.names(values, n), cached.states.markers

        def decode(rows: Rows, values: Markers, now_us: int) -> tuple[ViewRead, StatusArray]:
            # Floored as the clock of a prediction is (SEMANTICS 1.2).
            t = now_us // MILLISECOND * MILLISECOND
            known = cached.history.check_markers(markers, [values[name] for name in markers])
            known = known.limit_age(view.hash, markers, view.max_age_us, t)
            read = cached.states.read(keys, rows, known, t).reads[view.name]
            # Unavailable features are NOT_FOUND: Feast has no status for them.
            # A ttl of 0 is none: events leave a window without it.
            return read, row_status(read.has_row, read.versions.event_ts, now_us, 0)

        features = select_features({column.name: "double_val" for column in view.features}, names)
        return ViewRequest(table=table, features=features, keys=keys, markers=markers, decode=decode)

    def _get(self, view: WindowView, reader: Connections) -> _CachedView:
        if view.hash not in self._cached:
            plan = replace(
                self._plans.plan, views=(), request=(), transforms=(), services=(), windows=(view,), sources=()
            )
            history, states = MarkerHistory.from_runs(self._state, [plan], reader.on_connect), WindowStates(plan)
            self._cached[view.hash] = _CachedView(states=states, history=history)
        return self._cached[view.hash]


class EventPusher:
    """Sends frames to the event sources of a project; threads may share it.

    Args:
        address: URL of the Redis with the streams of push sources.
    """

    def __init__(self, state: ProjectState, settings: Settings, project: str, address: str) -> None:
        self._plans = WindowPlans(state)
        self._settings = settings
        self._project = project
        self._address = address
        self._senders: dict[str, tuple[EventSource, EventSender]] = {}
        self._lock = threading.Lock()

    def push(self, name: str, frame: pd.DataFrame) -> None:
        """Send the rows of a frame to a source's stream, and return when the stream has them.

        Raises:
            RequestError: the applied plan has no such source, or a row cannot be sent.
            StoreError: the stream is unreachable; some rows may have been sent.
        """
        source = self._plans.source(name)
        if source is None:
            raise RequestError(
                "event source", "is not in the applied plan", value=name, fix="run `skewless apply`, then push again"
            )
        # All rows before the first is sent: a row that cannot be a message sends none.
        payloads = event_payloads(source, frame)
        with self._lock:
            try:
                self._get_sender(source).send(payloads)
            # Do not reuse a failed connection: the next push opens a new one.
            except StoreError:
                _, failed = self._senders.pop(name, (None, None))
                if failed is not None:
                    failed.close()
                raise

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for _, sender in self._senders.values():
                sender.close()
            self._senders.clear()

    def _get_sender(self, source: EventSource) -> EventSender:
        cached = self._senders.get(source.name)
        # A source that was applied again may have another stream.
        if cached is None or cached[0] != source:
            if cached is not None:
                cached[1].close()
            sender = open_sender(source, self._settings, project=self._project, redis_url=self._address)
            cached = self._senders[source.name] = (source, sender)
        return cached[1]


def event_payloads(source: EventSource, frame: pd.DataFrame) -> list[bytes]:
    """Return the rows of a frame as messages: JSON objects of the source's columns, times in microseconds.

    A value that does not fit its column is sent unchanged: the worker rejects it with a reason. NaN is null.

    Raises:
        RequestError: the frame has no event time column, or a value that JSON cannot represent.
    """
    if source.event_column not in frame.columns:
        raise RequestError(
            f"event source {source.name!r}",
            "was sent a frame without the event time column",
            value=source.event_column,
            fix=f"add the column {source.event_column!r}",
        )
    types = {source.event_column: DType.TIMESTAMP, **{column.name: column.dtype for column in source.columns}}
    names = [name for name in types if name in frame.columns]
    columns = [_values(source, name, frame[name], types[name]) for name in names]
    try:
        return [
            json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False).encode()
            for row in zip(*columns, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"event source {source.name!r}", f"was sent a value that is not JSON: {error}", fix="send plain values"
        ) from error


def _values(source: EventSource, name: str, column: pd.Series[Any], dtype: DType) -> Sequence[Any]:
    try:
        values = pa.array(column, from_pandas=True)
        if pa.types.is_timestamp(values.type):
            return list(cast_times(values, pa.timestamp("us")).cast(pa.int64()).to_pylist())
    except (pa.ArrowException, ValueError) as error:
        raise RequestError(
            f"event source {source.name!r} column {name!r}",
            f"was sent values that have no common type: {error}",
            fix="send values of one type",
        ) from error
    if pa.types.is_floating(values.type) and dtype in _INTEGERS:
        # pandas converts a column of integers with a null to floats.
        with contextlib.suppress(pa.ArrowInvalid):
            values = values.cast(pa.int64())
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values.to_pylist()]
