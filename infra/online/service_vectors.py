"""Turns requests into the vectors of one service: names the keys to read, and decodes their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from skewless.contract.keys import KeyCodec, KeyValue, marker_key
from skewless.contract.number_rows import NumberRows
from skewless.contract.plan import View
from skewless.contract.request import ParsedRows
from skewless.contract.rows import RowCodec, Versions, empty_read
from skewless.contract.status import Int64Array, StatusArray
from skewless.contract.vector import Assembler, Matrix
from skewless.contract.windows.view import WindowView
from skewless.infra.online.marker_history import MarkerStatus
from skewless.infra.online.window_states import StateProgress, ViewReads, WindowStates

Keys = Mapping[str, Sequence[KeyValue | None]]


class ServiceVectors(NamedTuple):
    """The vectors for n rows, and their origin.

    Args:
        matrix: float64, C-contiguous, shape ``(n, n_features)``; NaN is missing.
        status: status of each view of the plan (``all_views``), shape ``(n, n_views)``.
        event_ts: event time of each row in microseconds, same shape; undefined if no row was found. For a windowed
            view, its watermark.
        watermark: of each view, shape ``(n_views,)``: the time up to which all arrived data has been applied,
            microseconds, perhaps after ``t``; 0: unknown.
        versions: per view, the origin of its rows.
        applied: per windowed view, the positions that its states include.
        corrupt: number of corrupt rows and states; these are UNAVAILABLE.
    """

    matrix: Matrix
    status: StatusArray
    event_ts: Int64Array
    watermark: Int64Array
    versions: Mapping[str, Versions]
    applied: Mapping[str, StateProgress]
    corrupt: int = 0


class VectorReader:
    """Names the keys of one service in the online store, and turns their values into vectors.

    Args:
        assembler: for the service's plan, with its vocabularies.
        windows: reads its windowed views.
    """

    def __init__(self, assembler: Assembler, windows: WindowStates) -> None:
        plan = assembler.plan
        self._assembler = assembler
        self._windows = windows
        self._views = plan.views
        self._keys = [KeyCodec(plan.project, view) for view in plan.views]
        self._rows = [RowCodec(view) for view in plan.views]
        self._marker_by_view = {view.name: marker_key(plan.project, view) for view in plan.views}
        self._markers = list(self._marker_by_view.values())
        self._numbers = NumberRows(plan) if NumberRows.supports(plan) else None
        self._views_with_max_age = [view for view in plan.all_views if view.max_age_us]
        self._row_marker_lists = [[marker] for marker in self._markers]

    @property
    def markers(self) -> list[str]:
        """Return the names of the markers to read with the rows: of row views, then of windowed views."""
        return [*self._markers, *self._windows.markers] if self._assembler.plan.windows else self._markers

    def markers_of(self, view: View | WindowView) -> list[str]:
        """Return the names of a view's markers."""
        return (
            self._windows.markers_of(view.name) if isinstance(view, WindowView) else [self._marker_by_view[view.name]]
        )

    def check_ages(self, marker_status: MarkerStatus, t: int) -> MarkerStatus:
        """Return the status of the service's markers at time ``t``.

        Views that were not updated for longer than their definition allows count as lost (SEMANTICS 8.4).
        """
        own = (
            MarkerStatus(marker_status.lost & set(self.markers), marker_status.watermarks)
            if marker_status.lost
            else marker_status
        )
        for view in self._views_with_max_age:
            own = own.limit_age(view.hash, self.markers_of(view), view.max_age_us, t)
        return own

    def names(self, keys: Keys, n: int) -> list[bytes | None]:
        """Return the keys of n entity rows: the first entity's in each view, the second's, and so on; then of states.

        A key is None where a part of it is null, and for states of an unknown generation.
        """
        if not self._keys:
            return self._windows.names(keys, n)
        # By entity, not by view: `NumberRows` reads all rows of one entity as one record.
        rows = list(chain.from_iterable(zip(*(codec.encode_columns(keys) for codec in self._keys), strict=True)))
        return rows + self._windows.names(keys, n) if self._assembler.plan.windows else rows

    def vectors(
        self,
        names: Sequence[bytes | None],
        stored: Sequence[bytes | None],
        marker_status: MarkerStatus,
        t: int,
        request: ParsedRows,
    ) -> ServiceVectors:
        """Return the vectors of the n rows of ``start_read`` at time ``t``, a multiple of one millisecond.

        Args:
            names: the keys from ``names``.
            stored: the value of each key; None: no value.
            marker_status: the status of the markers that were read with them; views of lost markers are UNAVAILABLE.
            t: microseconds.
            request: the request.
        """
        vectors = self.numbers(stored, marker_status, t)
        return vectors or self.assemble(
            self.reads(names, stored, marker_status, t, request.n), marker_status, t, request
        )

    def numbers(self, stored: Sequence[bytes | None], marker_status: MarkerStatus, t: int) -> ServiceVectors | None:
        """Return the same as ``vectors``, faster; None if the views have to be decoded separately."""
        # The fast path cannot represent an UNAVAILABLE view.
        vectors = None if self._numbers is None or marker_status.lost else self._numbers.vectors(stored, t)
        if vectors is None:
            return None
        return ServiceVectors(
            matrix=vectors.matrix,
            status=vectors.status,
            event_ts=vectors.event_ts,
            watermark=self._watermark(marker_status),
            versions=vectors.versions,
            applied={},
        )

    def reads(
        self, names: Sequence[bytes | None], stored: Sequence[bytes | None], marker_status: MarkerStatus, t: int, n: int
    ) -> ViewReads:
        """Return the decoded rows of each view for n rows; arguments as in ``vectors``."""
        step = len(self._views)
        rows = {
            view.name: empty_read(view, n, available=False)
            if marker in marker_status.lost
            # Values are interleaved by entity: every step-th one belongs to this view.
            else codec.decode(stored[i : step * n : step])
            for i, (view, codec, marker) in enumerate(zip(self._views, self._rows, self._markers, strict=True))
        }
        corrupt = sum(int(read.unavailable.sum()) for read in rows.values() if read.unavailable is not None)
        states = self._windows.read(names[step * n :], stored[step * n :], marker_status, t)
        return ViewReads(reads={**rows, **states.reads}, applied=states.applied, corrupt=corrupt + states.corrupt)

    def unavailable(self, t: int, request: ParsedRows) -> ServiceVectors:
        """Return the vectors for a store that did not reply."""
        rows = {view.name: empty_read(view, request.n, available=False) for view in self._views}
        states = self._windows.unavailable(request.n)
        return self.assemble(
            ViewReads(reads={**rows, **states.reads}, applied=states.applied), MarkerStatus(), t, request
        )

    def assemble(self, views: ViewReads, marker_status: MarkerStatus, t: int, request: ParsedRows) -> ServiceVectors:
        """Return the vectors from the decoded rows of each view."""
        vectors = self._assembler.assemble(np.full(request.n, t, dtype=np.int64), views.reads, request.fields)
        names = [view.name for view in self._assembler.plan.all_views]
        status = np.empty((request.n, len(names)), dtype=np.uint8)
        event_ts = np.empty((request.n, len(names)), dtype=np.int64)
        for i, name in enumerate(names):
            status[:, i] = vectors.status[name]
            event_ts[:, i] = views.reads[name].versions.event_ts
        return ServiceVectors(
            matrix=vectors.matrix,
            status=status,
            event_ts=event_ts,
            watermark=self._watermark(marker_status),
            versions={name: read.versions for name, read in views.reads.items()},
            applied=views.applied,
            corrupt=views.corrupt,
        )

    def _watermark(self, marker_status: MarkerStatus) -> Int64Array:
        marker_lists = [*self._row_marker_lists, *self._windows.marker_lists]
        return np.array([marker_status.watermark(each) for each in marker_lists], dtype=np.int64)
