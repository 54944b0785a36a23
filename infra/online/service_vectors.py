"""From the parsed rows of requests to the vectors of one service: which keys are read, and what their rows say."""

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
from skewless.infra.online.marker_history import AgeLimit, MarkerStatus
from skewless.infra.online.window_states import StateProgress, ViewReads, WindowStates

Keys = Mapping[str, Sequence[KeyValue | None]]


class ServiceVectors(NamedTuple):
    """What a model sees for n rows, and where it comes from.

    Args:
        matrix: float64, C-contiguous, shape ``(n, n_features)``; NaN is missing.
        status: of what each view of the plan (``all_views``) answered, shape ``(n, n_views)``.
        event_ts: of the same, microseconds; meaningless where nothing was found. Of a windowed view its watermark.
        watermark: of each view, shape ``(n_views,)``: up to when all that had arrived by then was in what was read,
            microseconds, perhaps after ``t``; 0: unknown.
        versions: per view, where its rows come from.
        applied: per windowed view, up to where its states had been applied.
        damaged: how many rows and states of entities could not be read; these are UNAVAILABLE.
    """

    matrix: Matrix
    status: StatusArray
    event_ts: Int64Array
    watermark: Int64Array
    versions: Mapping[str, Versions]
    applied: Mapping[str, StateProgress]
    damaged: int = 0


class VectorReader:
    """Names what one service needs from the online store, and turns it into vectors.

    Args:
        assembler: of the service's plan, with its vocabularies.
        windows: what reads its windowed views.
    """

    def __init__(self, assembler: Assembler, windows: WindowStates) -> None:
        plan = assembler.plan
        self._assembler = assembler
        self._windows = windows
        self._views = plan.views
        self._keys = [KeyCodec(plan.project, view) for view in plan.views]
        self._rows = [RowCodec(view) for view in plan.views]
        self._mark_of = {view.name: marker_key(plan.project, view) for view in plan.views}
        self._marks = list(self._mark_of.values())
        self._numbers = NumberRows(plan) if NumberRows.supports(plan) else None
        self._limited = [view for view in plan.all_views if view.max_age_us]
        self._rows_marks = [[mark] for mark in self._marks]

    @property
    def markers(self) -> list[str]:
        """Return the markers to be read with the rows: of the views, then of the windowed views."""
        return [*self._marks, *self._windows.markers] if self._assembler.plan.windows else self._marks

    def markers_of(self, view: View | WindowView) -> list[str]:
        """Return the markers that vouch for a view of the plan."""
        return self._windows.markers_of(view.name) if isinstance(view, WindowView) else [self._mark_of[view.name]]

    def standing(self, standing: MarkerStatus, t: int) -> MarkerStatus:
        """Return what the markers of the service say at a time.

        Those of a view that has not been updated for longer than its definition allows count as lost (SEMANTICS 8.4).
        """
        own = MarkerStatus(standing.lost & set(self.markers), standing.watermarks) if standing.lost else standing
        if not self._limited:
            return own
        return own.within([AgeLimit(view.hash, self.markers_of(view), view.max_age_us) for view in self._limited], t)

    def names(self, keys: Keys, n: int) -> list[bytes | None]:
        """Return the keys of n entity rows: the first's in each view, the second's, and so on; then of the states.

        None stands where a part of a key is null, and for states that are not known yet.
        """
        if not self._keys:
            return self._windows.names(keys, n)
        rows = list(chain.from_iterable(zip(*(codec.encode_columns(keys) for codec in self._keys), strict=True)))
        return rows + self._windows.names(keys, n) if self._assembler.plan.windows else rows

    def vectors(
        self,
        names: Sequence[bytes | None],
        stored: Sequence[bytes | None],
        standing: MarkerStatus,
        t: int,
        ask: ParsedRows,
    ) -> ServiceVectors:
        """Return the vectors of the n rows of ``ask`` at time ``t``, a whole millisecond.

        Args:
            names: as ``names`` returned them.
            stored: what stands under each; None: nothing.
            standing: what the markers say that were read with them; the views of lost ones are UNAVAILABLE.
        """
        found = self.numbers(stored, standing, t)
        return found or self.assemble(self.reads(names, stored, standing, t, ask.n), standing, t, ask)

    def numbers(self, stored: Sequence[bytes | None], standing: MarkerStatus, t: int) -> ServiceVectors | None:
        """Return what ``vectors`` returns, sooner; None if it cannot be told without the reads of each view."""
        found = None if self._numbers is None or standing.lost else self._numbers.vectors(stored, t)
        if found is None:
            return None
        return ServiceVectors(
            matrix=found.matrix,
            status=found.status,
            event_ts=found.event_ts,
            watermark=self._watermark(standing),
            versions=found.versions,
            applied={},
        )

    def reads(
        self, names: Sequence[bytes | None], stored: Sequence[bytes | None], standing: MarkerStatus, t: int, n: int
    ) -> ViewReads:
        """Return what each view answered for n rows; arguments as of ``vectors``."""
        step = len(self._views)
        rows = {
            view.name: empty_read(view, n, available=False)
            if mark in standing.lost
            else codec.decode(stored[i : step * n : step])
            for i, (view, codec, mark) in enumerate(zip(self._views, self._rows, self._marks, strict=True))
        }
        damaged = sum(int(read.unavailable.sum()) for read in rows.values() if read.unavailable is not None)
        states = self._windows.read(names[step * n :], stored[step * n :], standing, t)
        return ViewReads(reads={**rows, **states.reads}, applied=states.applied, damaged=damaged + states.damaged)

    def unavailable(self, t: int, ask: ParsedRows) -> ServiceVectors:
        """Return the vectors where the store did not answer."""
        rows = {view.name: empty_read(view, ask.n, available=False) for view in self._views}
        states = self._windows.unavailable(ask.n)
        return self.assemble(ViewReads(reads={**rows, **states.reads}, applied=states.applied), MarkerStatus(), t, ask)

    def assemble(self, found: ViewReads, standing: MarkerStatus, t: int, ask: ParsedRows) -> ServiceVectors:
        """Return the vectors from what each view answered."""
        vectors = self._assembler.assemble(np.full(ask.n, t, dtype=np.int64), found.reads, ask.fields)
        views = [view.name for view in self._assembler.plan.all_views]
        status = np.empty((ask.n, len(views)), dtype=np.uint8)
        event_ts = np.empty((ask.n, len(views)), dtype=np.int64)
        for i, name in enumerate(views):
            status[:, i] = vectors.status[name]
            event_ts[:, i] = found.reads[name].versions.event_ts
        return ServiceVectors(
            matrix=vectors.matrix,
            status=status,
            event_ts=event_ts,
            watermark=self._watermark(standing),
            versions={name: read.versions for name, read in found.reads.items()},
            applied=found.applied,
            damaged=found.damaged,
        )

    def _watermark(self, standing: MarkerStatus) -> Int64Array:
        marks = [*self._rows_marks, *self._windows.marker_lists]
        return np.array([standing.watermark(each) for each in marks], dtype=np.int64)
