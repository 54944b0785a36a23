"""Reads the features of events: windows of their own source exactly, all other views as a request reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skewless.contract.clock import Clock
from skewless.contract.errors import StoreError
from skewless.contract.keys import window_marker
from skewless.contract.plan import FeaturePlan
from skewless.contract.request import ParsedRows
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.view import WindowView
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.reads.online.marker_history import MarkerHistory, MarkerStatus
from skewless.infra.reads.online.port import BlockingOnlineReader, Marker
from skewless.infra.reads.online.service_vectors import ServiceVectors
from skewless.infra.reads.online.state_reader import StateReader
from skewless.infra.reads.online.window_states import ViewReads, WindowStates
from skewless.infra.records.predictions.record import DecidedEvents
from skewless.serving.prediction.rejections import incomplete_view_error
from skewless_decisions.events import AcceptedEvents
from skewless_decisions.exact_windows import DecidedRows, ExactWindows, StoredStates
from skewless_decisions.pending_events import PendingEvents

_RELOAD_S = 1.0
_SKEW_S = 60.0


@dataclass(frozen=True, kw_only=True, eq=False)
class EventVectors:
    """The vectors of n events of one model version.

    Args:
        assembled: the vectors, and the rows that they were read from.
        degraded: a view could not be read, and its features are null.
        outside: where values are outside the model's bounds, as ``BoundsCheck.outside``; None: nowhere.
        corrupt: the events that have a corrupt row.
        read_start, read_end: times before and after the read of the store, microseconds.
        skew_us: measured difference between the clocks of the store and this machine.
    """

    assembled: ServiceVectors
    degraded: bool
    outside: BoolArray | None
    corrupt: Int64Array
    read_start: int
    read_end: int
    skew_us: int


@dataclass(kw_only=True, eq=False)
class DecisionReads:
    """Reads features for the decisions about one source's events; used from one thread.

    Args:
        source: name of the event source; empty: the decisions are not about events.
        plan: the applied plan.
        reader: of the online store.
        windows: reads the windows of the source.
        marker_history: the history of the markers.
        clock: of the project.
        measure_skew: measures the difference between the clocks of the store and this machine, microseconds.
    """

    source: str
    plan: FeaturePlan
    reader: BlockingOnlineReader
    windows: ExactWindows
    marker_history: MarkerHistory
    clock: Clock
    measure_skew: Callable[[], int]
    _states: dict[str, tuple[float, WindowStates]] = field(default_factory=dict)
    _skew: tuple[float, int] = (0.0, 0)

    def read(
        self,
        model: ServedModel,
        columns: Mapping[str, Sequence[Any]],
        events: DecidedEvents,
        pending: PendingEvents,
        *,
        degraded: bool = False,
    ) -> EventVectors:
        """Return the vectors of events as of just before each.

        Args:
            columns: the parsed inputs of the model.
            degraded: views that cannot be read are null; otherwise the events wait for them.

        Raises:
            StoreError: a view cannot be read now.
        """
        reader, request = model.reader, model.parser.build_rows(columns)
        n, read_start, skew_us = request.n, self.clock.now_us(), self._read_skew()
        own = {view.name: model.windows.reader_of(view.name) for view in self._own_views(model)}
        own_markers = {name: self._own_marker(each, pending) for name, each in own.items()}
        names = reader.names(request.keys, n)
        stored, status, marks = self._fetch(names, reader.markers, list(own_markers.values()), degraded=degraded)
        hidden, is_degraded = self._hide(model, None if stored is None else status, int(events.t.max()))
        if is_degraded and not degraded:
            raise incomplete_view_error(model, hidden, int(events.t.max()))
        # The windows of the source are read below, and skipped here.
        left_out = MarkerStatus(hidden.lost | {each.view.hash for each in own.values()}, hidden.watermarks)
        reads = reader.reads(names, stored or [None] * len(names), left_out, events.t, n)
        corrupt = np.empty(0, dtype=np.int64) if stored is None else _find_corrupt(reads)
        rows = DecidedRows(ask=request, t=events.t, before=events.seq)
        all_reads, applied = dict(reads.reads), dict(reads.applied)
        step, windows = len(model.plan.views) * n, [view.name for view in model.plan.windows]
        asked = []
        for name, each in own.items():
            part = slice(step + windows.index(name) * n, step + (windows.index(name) + 1) * n)
            states, marker = None if stored is None else stored[part], marks.get(own_markers[name])
            asked.append(StoredStates(reader=each, names=names[part], states=states, marker=marker))
        for name, (read, progress) in zip(own, self.windows.read(asked, rows, pending), strict=True):
            all_reads[name], applied[name] = read, progress
        views = ViewReads(reads=all_reads, applied=applied, corrupt=len(corrupt))
        assembled = reader.assemble(views, hidden, events.t, request)
        return EventVectors(
            assembled=assembled,
            degraded=is_degraded or bool(len(corrupt)),
            outside=None if model.bounds is None else model.bounds.find_outside(assembled.matrix, request),
            corrupt=corrupt,
            read_start=read_start,
            read_end=self.clock.now_us(),
            skew_us=skew_us,
        )

    def _own_views(self, model: ServedModel) -> list[WindowView]:
        return [view for view in model.plan.windows if view.source == self.source]

    def _hide(self, model: ServedModel, status: MarkerStatus | None, t: int) -> tuple[MarkerStatus, bool]:
        """Return the status without losses of the source's own windows, and whether another view cannot be read.

        Args:
            status: of the markers; None: the store did not answer.
        """
        own, reader = self._own_views(model), model.reader
        if status is None:
            others = [view for view in model.plan.all_views if view not in own]
            lost = {name for view in others for name in (view.hash, *reader.markers_of(view))}
            return MarkerStatus(frozenset(lost)), bool(others)
        status = reader.check_ages(status, t)
        exact = {name for view in own for name in (view.hash, *reader.markers_of(view))}
        return MarkerStatus(status.lost - exact, status.watermarks), bool(status.lost - exact)

    def read_beside(
        self, view: WindowView, feature: str, events: AcceptedEvents, t: Int64Array, pending: PendingEvents
    ) -> tuple[Floats, Floats]:
        """Return a feature of a view of the source at time ``t`` without and with each event, NaN for null.

        Raises:
            StoreError: the feature cannot be read.
        """
        reader = self._state_reader(view)
        keys = {key.name: events.rows[key.name].to_pylist() for key in view.keys}
        request = ParsedRows(keys=keys, fields={})
        names = [None] * len(t) if reader.keys is None else reader.keys.encode_columns(keys)
        marker = self._own_marker(reader, pending)
        states, _, marks = self._fetch(names, [], [marker], degraded=True)
        values = []
        for before in (events.seq, events.seq + 1):
            rows = DecidedRows(ask=request, t=t, before=before)
            stored = StoredStates(reader=reader, names=names, states=states, marker=marks.get(marker))
            ((read, _),) = self.windows.read([stored], rows, pending)
            values.append(np.where(read.nulls[feature], np.nan, np.asarray(read.values[feature], dtype=np.float64)))
        return values[0], values[1]

    def find_newest(self, partition: str, end: int) -> int | None:
        """Return the greatest event time of the accepted events before a position, microseconds; None: no event.

        Raises:
            StoreError: the log cannot be read.
        """
        newest = [
            int(events.ts.max())
            for rows in PartitionLog(self.windows.state, partition).read(0, end - 1)
            if len((events := AcceptedEvents.of(rows)).seq)
        ]
        return max(newest, default=None)

    def close(self) -> None:
        """Close the connection to the store."""
        self.reader.close()

    def _fetch(
        self, names: Sequence[bytes | None], markers: Sequence[str], own: Sequence[str], *, degraded: bool
    ) -> tuple[list[bytes | None] | None, MarkerStatus, dict[str, Marker | None]]:
        """Return the value of each key, the status of markers, and the own markers; no values: the store is down."""
        distinct = [name for name in dict.fromkeys(names) if name is not None]
        asked = list(dict.fromkeys([*markers, *own]))
        try:
            values, marks = self.reader.get_with_markers(distinct, asked)
        except StoreError:
            if not degraded:
                raise
            return None, MarkerStatus(), {}
        by_key, by_name = dict(zip(distinct, values, strict=True)), dict(zip(asked, marks, strict=True))
        status = self.marker_history.check_markers(markers, [by_name[name] for name in markers])
        return [None if name is None else by_key[name] for name in names], status, by_name

    def _own_marker(self, reader: StateReader, pending: PendingEvents) -> str:
        """Return the name of the marker that tells how far a view's states include the events' partition."""
        return window_marker(self.plan.project, reader.view, reader.generation, pending.partition)

    def _state_reader(self, view: WindowView) -> StateReader:
        """Return a reader of a view's live states, whose generation was read within the last second."""
        at, states = self._states.get(view.hash, (0.0, None))
        if states is None or time.monotonic() >= at:
            states = states or WindowStates(
                FeaturePlan(
                    project=self.plan.project, views=(), request=(), transforms=(), services=(), windows=(view,)
                )
            )
            self._states[view.hash] = time.monotonic() + _RELOAD_S, states
            states.load_generations(self.reader.get(states.pointers))
        return states.reader_of(view.name)

    def _read_skew(self) -> int:
        at, skew_us = self._skew
        if time.monotonic() >= at:
            try:
                skew_us = abs(self.measure_skew())
            except StoreError:
                return skew_us  # the read that follows reports it
            self._skew = time.monotonic() + _SKEW_S, skew_us
        return skew_us


def _find_corrupt(reads: ViewReads) -> Int64Array:
    """Return the rows with a corrupt value in some view."""
    if not reads.corrupt:
        return np.empty(0, dtype=np.int64)
    masks = [read.unavailable for read in reads.reads.values() if read.available and read.unavailable is not None]
    return np.flatnonzero(np.logical_or.reduce(masks)) if masks else np.empty(0, dtype=np.int64)
