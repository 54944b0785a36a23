"""Online features in process: from entity keys to what a model would see now, without a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from skewless.contract.keys import KeyCodec
from skewless.contract.plan import FeaturePlan
from skewless.contract.request import ParsedRows
from skewless.contract.rows import ViewRead
from skewless.contract.status import Int64Array, StatusArray
from skewless.contract.vector import Assembler, Matrix, Vocabularies
from skewless.contract.windows.hops import MILLISECOND
from skewless.infra.online.integer_keys import IntegerKeys, KeySeparators
from skewless.infra.online.marker_history import MarkerHistory, MarkerStatus
from skewless.infra.online.port import BlockingOnlineReader
from skewless.infra.online.service_vectors import VectorReader
from skewless.infra.online.window_states import ViewReads, WindowStates

_LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True)
class OnlineFeatures:
    """What a service held for n entity rows at one time.

    Args:
        t: when it was asked, microseconds.
        labels: names of the matrix's columns.
        matrix: float64, shape ``(n, n_features)``; NaN is missing, as a model sees it.
        status: per view, the status of the row read, shape ``(n,)``.
        watermarks: per view, up to when all that had arrived by then was in what was read, microseconds; 0: unknown.
        look: decodes what was read.
    """

    t: int
    labels: tuple[str, ...]
    matrix: Matrix
    status: Mapping[str, StatusArray]
    watermarks: Mapping[str, int]
    look: Callable[[], ViewReads]

    @cached_property
    def reads(self) -> Mapping[str, ViewRead]:
        """Return what was read, per view."""
        return self.look().reads

    def age_us(self, view: str) -> Int64Array:
        """Return the age of a view's rows, of a windowed view its watermark's, microseconds, shape ``(n,)``.

        It is -1 where no row was found.
        """
        read = self.reads[view]
        return np.where(read.has_row, self.t - read.versions.event_ts, -1)


class FeatureReader:
    """Reads the features of one service.

    Args:
        plan: the part of the plan that the service needs (``FeaturePlan.select_service``).
        vocabularies: per text column, its categories in the order of their codes; a model package has them.
        guard: knows how far the views were; a view that has gone back is UNAVAILABLE.
    """

    def __init__(
        self,
        plan: FeaturePlan,
        reader: BlockingOnlineReader,
        vocabularies: Vocabularies | None = None,
        guard: MarkerHistory | None = None,
    ) -> None:
        self.plan = plan
        self.vocabularies = vocabularies or {}
        self._reader = reader
        self._guard = guard or MarkerHistory()
        self._windows = WindowStates(plan)
        self._assembler = Assembler(plan, self.vocabularies)
        self._vectors = VectorReader(self._assembler, self._windows)
        keys = [KeyCodec(plan.project, view) for view in plan.views]
        self._heads = [KeySeparators(each.prefix + b"|") for each in keys]
        columns = {each.names for each in keys}
        # The one key column of all views, if it has integers.
        self._integers = min(columns)[0] if not plan.windows and len(columns) == 1 and len(min(columns)) == 1 else ""
        self._names = [view.name for view in plan.all_views]
        self._look_at = 0.0

    def views(self, ask: ParsedRows, t: int) -> tuple[Mapping[str, ViewRead], dict[str, int]]:
        """Return what each view holds for the rows of a request at time ``t``, from one round trip, and watermarks.

        Raises:
            StoreError: the store is away.
        """
        names, stored, standing = self._fetch(ask, t)
        reads = self._vectors.reads(names, stored, standing, t, ask.n).reads
        marks = {view.name: self._vectors.markers_of(view) for view in self.plan.all_views}
        return reads, {view: standing.watermark(each) for view, each in marks.items()}

    def read(self, ask: ParsedRows, t: int) -> OnlineFeatures:
        """Return the service's features for the rows of a request at time ``t``, microseconds.

        Raises:
            StoreError: the store is away.
            DefinitionError: a feature is text and has no vocabulary.
        """
        if self.plan.windows:
            t = t // MILLISECOND * MILLISECOND
        names, stored, standing = self._fetch(ask, t)
        vectors, found = self._vectors.numbers(stored, standing, t), None
        if vectors is None:
            found = self._vectors.reads(names, stored, standing, t, ask.n)
            vectors = self._vectors.assemble(found, standing, t, ask)
        return OnlineFeatures(
            t=t,
            labels=self._assembler.labels,
            matrix=vectors.matrix,
            status=dict(zip(self._names, vectors.status.T, strict=True)),
            watermarks=dict(zip(self._names, vectors.watermark.tolist(), strict=True)),
            look=lambda: found or self._vectors.reads(names, stored, standing, t, ask.n),
        )

    def _fetch(self, ask: ParsedRows, t: int) -> tuple[Sequence[bytes | None], Sequence[bytes | None], MarkerStatus]:
        """Return the keys as ``VectorReader.names`` has them, what stands under each, and what the markers say."""
        if self.plan.windows and time.monotonic() > self._look_at:
            # Which states are read is looked up once a moment.
            self._windows.take(self._reader.get_marked(self._windows.pointers, [])[0])
            self._look_at = time.monotonic() + _LOOK_S
        marks = self._vectors.markers
        values: Sequence[Any] = ask.keys[self._integers] if self._integers else ()
        if values and set(map(type, values)) == {int}:
            keys = IntegerKeys(self._heads, values)
            rows, markers = self._reader.get_marked(keys, marks)
            return keys, rows, self._vectors.standing(self._guard.judge(marks, markers), t)
        names = self._vectors.names(ask.keys, ask.n)
        wanted = list(dict.fromkeys(name for name in names if name is not None))
        rows, markers = self._reader.get_marked(wanted, marks)
        found = dict(zip(wanted, rows, strict=True))
        stored = [None if name is None else found[name] for name in names]
        return names, stored, self._vectors.standing(self._guard.judge(marks, markers), t)
