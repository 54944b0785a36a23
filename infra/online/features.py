"""Reads online features in process: from entity keys to the model's input vectors, without a server."""

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
from skewless.infra.online.marker_history import MarkerHistory, MarkerStatus
from skewless.infra.online.port import BlockingOnlineReader
from skewless.infra.online.resp import IntegerKeys, KeySeparators
from skewless.infra.online.service_vectors import VectorReader
from skewless.infra.online.window_states import ViewReads, WindowStates

_RELOAD_S = 0.5  # how long a pointer to a generation is used before it is read again


@dataclass(frozen=True, kw_only=True)
class OnlineFeatures:
    """The features of one service for n entity rows at one time.

    Args:
        t: time of the request, microseconds.
        labels: names of the matrix's columns.
        matrix: float64, shape ``(n, n_features)``; NaN is missing, as in the model's input.
        status: per view, the status of each row, shape ``(n,)``.
        watermarks: per view, the watermark of its rows, microseconds; 0: unknown.
        decode: decodes the stored rows on demand.
    """

    t: int
    labels: tuple[str, ...]
    matrix: Matrix
    status: Mapping[str, StatusArray]
    watermarks: Mapping[str, int]
    decode: Callable[[], ViewReads]

    @cached_property
    def reads(self) -> Mapping[str, ViewRead]:
        """Return the decoded rows, per view."""
        return self.decode().reads

    def age_us(self, view: str) -> Int64Array:
        """Return the age of a view's rows in microseconds, shape ``(n,)``; of a windowed view, of its watermark.

        It is -1 where no row was found.
        """
        read = self.reads[view]
        return np.where(read.has_row, self.t - read.versions.event_ts, -1)


class FeatureReader:
    """Reads the features of one service.

    Args:
        plan: the part of the plan that the service needs (``FeaturePlan.only``).
        reader: of the online store.
        vocabularies: per text column, its categories in the order of their codes; from the model package.
        marker_history: the marker history; a view whose marker has gone back is UNAVAILABLE.
    """

    def __init__(
        self,
        plan: FeaturePlan,
        reader: BlockingOnlineReader,
        vocabularies: Vocabularies | None = None,
        marker_history: MarkerHistory | None = None,
    ) -> None:
        self.plan = plan
        self.vocabularies = vocabularies or {}
        self._reader = reader
        self._marker_history = marker_history or MarkerHistory()
        self._windows = WindowStates(plan)
        self._assembler = Assembler(plan, self.vocabularies)
        self._vectors = VectorReader(self._assembler, self._windows)
        keys = [KeyCodec(plan.project, view) for view in plan.views]
        self._separators = [KeySeparators(each.prefix + b"|") for each in keys]
        columns = {each.names for each in keys}
        # IntegerKeys needs one key column, shared by all views.
        self._integer_key = min(columns)[0] if not plan.windows and len(columns) == 1 and len(min(columns)) == 1 else ""
        self._names = [view.name for view in plan.all_views]
        self._reload_at = 0.0

    def views(self, request: ParsedRows, t: int) -> tuple[Mapping[str, ViewRead], dict[str, int]]:
        """Return the rows of each view for a request at time ``t``, from one round trip, and the views' watermarks.

        Raises:
            StoreError: the store is unavailable.
        """
        names, stored, marker_status = self._fetch(request, t)
        reads = self._vectors.reads(names, stored, marker_status, t, request.n).reads
        marker_names = {view.name: self._vectors.markers_of(view) for view in self.plan.all_views}
        return reads, {view: marker_status.watermark(each) for view, each in marker_names.items()}

    def read(self, request: ParsedRows, t: int) -> OnlineFeatures:
        """Return the service's features for a request at time ``t``, microseconds.

        Raises:
            StoreError: the store is unavailable.
            DefinitionError: a text feature has no vocabulary.
        """
        # States have records of milliseconds, so only whole milliseconds can be read exactly (SEMANTICS 3.5).
        if self.plan.windows:
            t = t // MILLISECOND * MILLISECOND
        names, stored, marker_status = self._fetch(request, t)
        vectors, reads = self._vectors.numbers(stored, marker_status, t), None
        if vectors is None:
            reads = self._vectors.reads(names, stored, marker_status, t, request.n)
            vectors = self._vectors.assemble(reads, marker_status, t, request)
        return OnlineFeatures(
            t=t,
            labels=self._assembler.labels,
            matrix=vectors.matrix,
            status=dict(zip(self._names, vectors.status.T, strict=True)),
            watermarks=dict(zip(self._names, vectors.watermark.tolist(), strict=True)),
            decode=lambda: reads or self._vectors.reads(names, stored, marker_status, t, request.n),
        )

    def _fetch(
        self, request: ParsedRows, t: int
    ) -> tuple[Sequence[bytes | None], Sequence[bytes | None], MarkerStatus]:
        """Return the keys in the order of ``VectorReader.names``, the value of each key, and the marker status."""
        if self.plan.windows and time.monotonic() > self._reload_at:
            # A new generation is noticed within _RELOAD_S; reading the pointers each time would cost a round trip.
            self._windows.load_generations(self._reader.get_with_markers(self._windows.pointers, [])[0])
            # After the read, so that a failed read is repeated by the next request.
            self._reload_at = time.monotonic() + _RELOAD_S
        marker_names = self._vectors.markers
        values: Sequence[Any] = request.keys[self._integer_key] if self._integer_key else ()
        # Exactly int: of a null or a bool, the faster encoding would make another key.
        if values and set(map(type, values)) == {int}:
            keys = IntegerKeys(self._separators, values)
            rows, markers = self._reader.get_with_markers(keys, marker_names)
            return keys, rows, self._vectors.check_ages(self._marker_history.check_markers(marker_names, markers), t)
        names = self._vectors.names(request.keys, request.n)
        distinct_keys = list(dict.fromkeys(name for name in names if name is not None))
        rows, markers = self._reader.get_with_markers(distinct_keys, marker_names)
        row_by_key = dict(zip(distinct_keys, rows, strict=True))
        stored = [None if name is None else row_by_key[name] for name in names]
        return names, stored, self._vectors.check_ages(self._marker_history.check_markers(marker_names, markers), t)
