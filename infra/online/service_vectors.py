"""From the parsed rows of requests to the vectors of one service: which keys are read, and what their rows say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import NamedTuple

import numpy as np

from infra.online.window_states import Applied, WindowStates
from skewless.keys import KeyCodec, KeyValue, marker_key
from skewless.number_rows import NumberRows
from skewless.request import Ask
from skewless.rows import RowCodec, Versions, ViewRead, missing
from skewless.status import Int64Array, StatusArray
from skewless.vector import Assembler, Matrix

Keys = Mapping[str, Sequence[KeyValue | None]]


class ServiceVectors(NamedTuple):
    """What a model sees for n rows, and where it comes from.

    Args:
        matrix: float64, C-contiguous, shape ``(n, n_features)``; NaN is missing.
        status: of what each view of the plan (``all_views``) answered, shape ``(n, n_views)``.
        event_ts: of the same, microseconds; meaningless where nothing was found.
        versions: per view, where its rows come from.
        applied: per windowed view, up to where its states had been applied.
    """

    matrix: Matrix
    status: StatusArray
    event_ts: Int64Array
    versions: Mapping[str, Versions]
    applied: Mapping[str, Applied]


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
        self._marks = [marker_key(plan.project, view) for view in plan.views]
        self._numbers = NumberRows(plan) if NumberRows.fits(plan) else None

    @property
    def markers(self) -> list[str]:
        """Return the markers to be read with the rows: of the views, then of the windowed views."""
        return [*self._marks, *self._windows.markers]

    def owner(self, marker: str) -> tuple[str, str]:
        """Return the view that a marker vouches for, and the command that fills it."""
        if marker in self._marks:
            return self._views[self._marks.index(marker)].name, "`skewless materialize`"
        return self._windows.owner(marker), "`skewless stream`"

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
        lost: AbstractSet[str],
        t: int,
        ask: Ask,
    ) -> ServiceVectors:
        """Return the vectors of the n rows of ``ask`` at time ``t``, a whole millisecond.

        Args:
            names: as ``names`` returned them.
            stored: what stands under each; None: nothing.
            lost: markers that are gone or have gone back; their views are UNAVAILABLE.

        Raises:
            StoreError: a row or state is not one of its view.
        """
        if self._numbers is not None and not lost:
            numbers = self._numbers.vectors(stored, t)
            if numbers is not None:
                return ServiceVectors(
                    matrix=numbers.matrix,
                    status=numbers.status,
                    event_ts=numbers.event_ts,
                    versions=numbers.versions,
                    applied={},
                )
        n_rows = len(self._views) * ask.n
        reads = self._decoded(stored[:n_rows], lost, ask.n)
        states = self._windows.read(names[n_rows:], stored[n_rows:], lost, t)
        return self._assembled({**reads, **states.reads}, states.applied, t, ask)

    def unavailable(self, t: int, ask: Ask) -> ServiceVectors:
        """Return the vectors where the store did not answer."""
        reads = {view.name: missing(view, ask.n, available=False) for view in self._views}
        states = self._windows.unavailable(ask.n)
        return self._assembled({**reads, **states.reads}, states.applied, t, ask)

    def _decoded(self, rows: Sequence[bytes | None], lost: AbstractSet[str], n: int) -> dict[str, ViewRead]:
        return {
            view.name: missing(view, n, available=False) if mark in lost else codec.decode(rows[i :: len(self._views)])
            for i, (view, codec, mark) in enumerate(zip(self._views, self._rows, self._marks, strict=True))
        }

    def _assembled(
        self, reads: Mapping[str, ViewRead], applied: Mapping[str, Applied], t: int, ask: Ask
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
            versions={name: read.versions for name, read in reads.items()},
            applied=applied,
        )
