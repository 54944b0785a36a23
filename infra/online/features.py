"""Online features in process: from entity keys to what a model would see now, without a server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from skewless.contract.keys import KeyCodec, marker_key
from skewless.contract.number_rows import NumberRows
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.request import Ask
from skewless.contract.rows import RowCodec, ViewRead, missing
from skewless.contract.status import Int64Array, StatusArray
from skewless.contract.vector import Assembler, Matrix, Vocabularies
from skewless.contract.windows.hops import MILLISECOND
from skewless.contract.windows.view import WindowView
from skewless.infra.online.guard import AgeLimit, Guard, Standing
from skewless.infra.online.integer_keys import Heads, IntegerKeys
from skewless.infra.online.port import BlockingOnlineReader
from skewless.infra.online.window_states import WindowStates

_LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True)
class OnlineFeatures:
    """What a service held for n entity rows at one time.

    Args:
        t: when it was asked, microseconds.
        labels: names of the matrix's columns.
        matrix: float64, shape ``(n, n_features)``; NaN is missing, as a model sees it.
        status: per view, the status of the row read, shape ``(n,)``.
        reads: per view, what was read.
        watermarks: per view, up to when all that had arrived by then was in what was read, microseconds; 0: unknown.
    """

    t: int
    labels: tuple[str, ...]
    matrix: Matrix
    status: Mapping[str, StatusArray]
    reads: Mapping[str, ViewRead]
    watermarks: Mapping[str, int]

    def age_us(self, view: str) -> Int64Array:
        """Return the age of a view's rows, of a windowed view its watermark's, microseconds, shape ``(n,)``.

        It is -1 where no row was found.
        """
        read = self.reads[view]
        return np.where(read.found, self.t - read.versions.event_ts, -1)


class FeatureReader:
    """Reads the features of one service.

    Args:
        plan: the part of the plan that the service needs (``FeaturePlan.only``).
        vocabularies: per text column, its categories in the order of their codes; a model package has them.
        guard: knows how far the views were; a view that has gone back is UNAVAILABLE.
    """

    def __init__(
        self,
        plan: FeaturePlan,
        reader: BlockingOnlineReader,
        vocabularies: Vocabularies | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.plan = plan
        self._guard = guard or Guard()
        self._windows = WindowStates(plan)
        self._marks = [marker_key(plan.project, view) for view in plan.views]
        self._reader = reader
        self.vocabularies = vocabularies or {}
        self._keys = [KeyCodec(plan.project, view) for view in plan.views]
        self._heads = [Heads(keys.prefix + b"|") for keys in self._keys]
        columns = {keys.names for keys in self._keys}
        # The one key column of all views, if it has integers.
        self._integers = min(columns)[0] if not plan.windows and len(columns) == 1 and len(min(columns)) == 1 else ""
        self._rows = {view.name: RowCodec(view) for view in plan.views}
        self._numbers = NumberRows(plan) if NumberRows.fits(plan) else None
        self._look_at = 0.0

    def views(self, ask: Ask, t: int) -> tuple[dict[str, ViewRead], dict[str, int]]:
        """Return what each view holds for the rows of a request at time ``t``, from one round trip, and watermarks.

        Raises:
            StoreError: the store is away.
        """
        if self.plan.windows:
            reads, standing = self._with_windows(ask, t)
        else:
            rows, standing = self._fetch(ask)
            standing = standing.within(self._limits, t)
            reads = self._decoded(rows, standing)
        return reads, self._watermarks(standing)

    def read(self, ask: Ask, t: int) -> OnlineFeatures:
        """Return the service's features for the rows of a request at time ``t``, microseconds.

        Raises:
            StoreError: the store is away.
            DefinitionError: a feature is text and has no vocabulary.
        """
        if self.plan.windows:
            t = t // MILLISECOND * MILLISECOND
            reads, standing = self._with_windows(ask, t)
            return self._assembled(reads, standing, ask, t)
        rows, standing = self._fetch(ask)
        standing = standing.within(self._limits, t)
        if self._numbers is not None and not standing.lost:
            numbers = self._numbers.vectors(rows, t)
            if numbers is not None:
                status = {view.name: numbers.status[:, i] for i, view in enumerate(self.plan.views)}
                return OnlineFeatures(
                    t=t,
                    labels=self._labels,
                    matrix=numbers.matrix,
                    status=status,
                    reads=_Reads(self._rows, rows),
                    watermarks=self._watermarks(standing),
                )
        return self._assembled(self._decoded(rows, standing), standing, ask, t)

    def _fetch(self, ask: Ask) -> tuple[Sequence[bytes | None], Standing]:
        """Return the first entity's row in each view, then the second's, and so on; and what the markers say."""
        values: Sequence[Any] = ask.keys[self._integers] if self._integers else ()
        if values and set(map(type, values)) == {int}:
            rows, markers = self._reader.get_marked(IntegerKeys(self._heads, values), self._marks)
            return rows, self._guard.judge(self._marks, markers)
        names = list(chain.from_iterable(zip(*(keys.encode_columns(ask.keys) for keys in self._keys), strict=True)))
        wanted = [name for name in names if name is not None]
        rows, markers = self._reader.get_marked(wanted, self._marks)
        if len(wanted) < len(names):
            stored = iter(rows)
            rows = [None if name is None else next(stored) for name in names]
        return rows, self._guard.judge(self._marks, markers)

    def _with_windows(self, ask: Ask, t: int) -> tuple[dict[str, ViewRead], Standing]:
        """Return what the views of both kinds hold; which states are read is looked up once a moment."""
        if time.monotonic() > self._look_at:
            self._windows.take(self._reader.get_marked(self._windows.pointers, [])[0])
            self._look_at = time.monotonic() + _LOOK_S
        n = len(next(iter(ask.keys.values())))
        names = list(chain.from_iterable(zip(*(keys.encode_columns(ask.keys) for keys in self._keys), strict=True)))
        states = self._windows.names(ask.keys, n)
        wanted = list(dict.fromkeys(name for name in (*names, *states) if name is not None))
        marks = [*self._marks, *self._windows.markers]
        rows, markers = self._reader.get_marked(wanted, marks)
        standing = self._guard.judge(marks, markers).within(self._limits, t)
        stored = dict(zip(wanted, rows, strict=True))
        found = [None if name is None else stored[name] for name in names]
        held = [None if name is None else stored[name] for name in states]
        return {**self._decoded(found, standing), **self._windows.read(states, held, standing, t).reads}, standing

    @property
    def _limits(self) -> list[AgeLimit]:
        limited = [view for view in self.plan.all_views if view.max_age_us]
        return [AgeLimit(view.hash, self._markers(view), view.max_age_us) for view in limited]

    def _watermarks(self, standing: Standing) -> dict[str, int]:
        return {view.name: standing.watermark(self._markers(view)) for view in self.plan.all_views}

    def _markers(self, view: View | WindowView) -> Sequence[str]:
        if isinstance(view, WindowView):
            return self._windows.markers_of(view.name)
        return [marker_key(self.plan.project, view)]

    def _decoded(self, rows: Sequence[bytes | None], standing: Standing) -> dict[str, ViewRead]:
        reads = _Reads(self._rows, rows)
        n = len(rows) // max(len(self._rows), 1)
        return {
            view.name: missing(view, n, available=False) if mark in standing.lost else reads[view.name]
            for view, mark in zip(self.plan.views, self._marks, strict=True)
        }

    def _assembled(self, reads: Mapping[str, ViewRead], standing: Standing, ask: Ask, t: int) -> OnlineFeatures:
        n = len(next(iter(reads.values())).found) if reads else len(next(iter(ask.fields.values()), ()))
        vectors = self._assembler.assemble(np.full(n, t, dtype=np.int64), reads, ask.fields)
        return OnlineFeatures(
            t=t,
            labels=self._labels,
            matrix=vectors.matrix,
            status=vectors.status,
            reads=reads,
            watermarks=self._watermarks(standing),
        )

    @cached_property
    def _assembler(self) -> Assembler:
        return Assembler(self.plan, self.vocabularies)

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        return tuple(ref.label for ref in self.plan.services[0].features)


class _Reads(Mapping[str, ViewRead]):
    """What each view held, unpacked when it is asked for."""

    def __init__(self, codecs: Mapping[str, RowCodec], rows: Sequence[bytes | None]) -> None:
        self._codecs, self._rows = codecs, rows
        self._done: dict[str, ViewRead] = {}

    def __getitem__(self, view: str) -> ViewRead:
        if view not in self._done:
            first = list(self._codecs).index(view)
            self._done[view] = self._codecs[view].decode(self._rows[first :: len(self._codecs)])
        return self._done[view]

    def __iter__(self) -> Iterator[str]:
        return iter(self._codecs)

    def __len__(self) -> int:
        return len(self._codecs)
