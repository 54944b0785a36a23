"""From the parsed rows of requests to the vectors of one service: which keys are read, and what their rows say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from skewless.contract.keys import KeyCodec, KeyValue, marker_key
from skewless.contract.number_rows import NumberRows
from skewless.contract.plan import View
from skewless.contract.request import Ask
from skewless.contract.rows import RowCodec, Versions, ViewRead, missing
from skewless.contract.status import Int64Array, StatusArray
from skewless.contract.vector import Assembler, Matrix
from skewless.contract.windows.view import WindowView
from skewless.infra.online.guard import AgeLimit, Standing
from skewless.infra.online.window_states import StateProgress, WindowStates

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
        self._numbers = NumberRows(plan) if NumberRows.fits(plan) else None
        self._limited = [view for view in plan.all_views if view.max_age_us]
        self._rows_marks = [[mark] for mark in self._marks]

    @property
    def markers(self) -> list[str]:
        """Return the markers to be read with the rows: of the views, then of the windowed views."""
        return [*self._marks, *self._windows.markers]

    def markers_of(self, view: View | WindowView) -> list[str]:
        """Return the markers that vouch for a view of the plan."""
        return self._windows.markers_of(view.name) if isinstance(view, WindowView) else [self._mark_of[view.name]]

    def standing(self, standing: Standing, t: int) -> Standing:
        """Return what the markers of the service say at a time.

        Those of a view that has not been updated for longer than its definition allows count as lost (SEMANTICS 8.4).
        """
        own = Standing(standing.lost & set(self.markers) if standing.lost else standing.lost, standing.watermarks)
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
        standing: Standing,
        t: int,
        ask: Ask,
    ) -> ServiceVectors:
        """Return the vectors of the n rows of ``ask`` at time ``t``, a whole millisecond.

        Args:
            names: as ``names`` returned them.
            stored: what stands under each; None: nothing.
            standing: what the markers say that were read with them; the views of lost ones are UNAVAILABLE.
        """
        if self._numbers is not None and not standing.lost:
            numbers = self._numbers.vectors(stored, t)
            if numbers is not None:
                return ServiceVectors(
                    matrix=numbers.matrix,
                    status=numbers.status,
                    event_ts=numbers.event_ts,
                    watermark=self._watermark(standing),
                    versions=numbers.versions,
                    applied={},
                )
        n_rows = len(self._views) * ask.n
        reads = self._decoded(stored[:n_rows], standing, ask.n)
        states = self._windows.read(names[n_rows:], stored[n_rows:], standing, t)
        vectors = self._assembled({**reads, **states.reads}, states.applied, t, ask, standing)
        damaged = sum(int(read.unanswered.sum()) for read in reads.values() if read.unanswered is not None)
        return vectors._replace(damaged=damaged + states.damaged)

    def unavailable(self, t: int, ask: Ask) -> ServiceVectors:
        """Return the vectors where the store did not answer."""
        reads = {view.name: missing(view, ask.n, available=False) for view in self._views}
        states = self._windows.unavailable(ask.n)
        return self._assembled({**reads, **states.reads}, states.applied, t, ask, Standing())

    def _watermark(self, standing: Standing) -> Int64Array:
        marks = [*self._rows_marks, *self._windows.marker_lists]
        return np.array([standing.watermark(each) for each in marks], dtype=np.int64)

    def _decoded(self, rows: Sequence[bytes | None], standing: Standing, n: int) -> dict[str, ViewRead]:
        step = len(self._views)
        return {
            view.name: missing(view, n, available=False) if mark in standing.lost else codec.decode(rows[i::step])
            for i, (view, codec, mark) in enumerate(zip(self._views, self._rows, self._marks, strict=True))
        }

    def _assembled(
        self, reads: Mapping[str, ViewRead], applied: Mapping[str, StateProgress], t: int, ask: Ask, standing: Standing
    ) -> ServiceVectors:
        vectors = self._assembler.assemble(np.full(ask.n, t, dtype=np.int64), reads, ask.fields)
        views = [view.name for view in self._assembler.plan.all_views]
        status = np.empty((ask.n, len(views)), dtype=np.uint8)
        event_ts = np.empty((ask.n, len(views)), dtype=np.int64)
        for i, name in enumerate(views):
            status[:, i] = vectors.status[name]
            event_ts[:, i] = reads[name].versions.event_ts
        return ServiceVectors(
            matrix=vectors.matrix,
            status=status,
            event_ts=event_ts,
            watermark=self._watermark(standing),
            versions={name: read.versions for name, read in reads.items()},
            applied=applied,
        )
