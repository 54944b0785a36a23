"""The features of one service: names the keys to read, turns their values into vectors, and reads them in process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from skewless.contract.keys import KeyCodec, KeyValue, marker_key
from skewless.contract.number_rows import NumberRows, NumberVectors
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.request import ParsedRows, RowParser
from skewless.contract.rows import RowCodec, Versions, ViewRead, empty_read
from skewless.contract.status import Int64Array, StatusArray
from skewless.contract.transforms import Columns
from skewless.contract.vector import Assembler, BlockJoin, Matrix, Vocabularies
from skewless.contract.windows.hops import MILLISECOND
from skewless.contract.windows.view import WindowView
from skewless.infra.reads.online.marker_history import MarkerHistory, MarkerStatus
from skewless.infra.reads.online.port import BlockingOnlineReader
from skewless.infra.reads.online.resp import IntegerKeys, KeySeparators
from skewless.infra.reads.online.state_reader import StateProgress
from skewless.infra.reads.online.window_states import ViewReads, WindowStates

Keys = Mapping[str, Sequence[KeyValue | None]]
MaybeBytes = Sequence[bytes | None]
Times = int | Int64Array  # one for all rows, or one for each
_RELOAD_S = 0.5  # how long a pointer to a generation is used before it is read again


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
        refs = [ref for ref in assembler.view_refs if ref.group in self._marker_by_view]
        self._is_direct = assembler.joins_blocks
        self._window_names = [view.name for view in plan.windows]
        is_joined = self._is_direct and refs
        self._numbers = NumberRows(plan.views, refs, assembler.codes, self._window_names) if is_joined else None
        self._join = BlockJoin(assembler, [*refs, *windows.columns])
        self._views_with_max_age = [view for view in plan.all_views if view.max_age_us]
        self._watermarks = MarkerStatus(), np.empty(0, dtype=np.int64)

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
        self, names: MaybeBytes, stored: MaybeBytes, marker_status: MarkerStatus, t: int, request: ParsedRows
    ) -> ServiceVectors:
        """Return the vectors of the n rows of ``start_read`` at time ``t``, a multiple of one millisecond.

        Args:
            names: the keys from ``names``.
            stored: the value of each key; None: no value.
            marker_status: the status of the markers that were read with them; views of lost markers are UNAVAILABLE.
            t: microseconds.
            request: the request.
        """
        vectors = self._join_blocks(names, stored, marker_status, t, request.fields)
        return vectors or self.assemble(
            self.reads(names, stored, marker_status, t, request.n), marker_status, t, request
        )

    def _join_blocks(
        self, names: MaybeBytes, stored: MaybeBytes, marker_status: MarkerStatus, t: int, fields: Columns
    ) -> ServiceVectors | None:
        """Return the same as ``vectors``, faster; None if the views have to be decoded one by one."""
        # Blocks cannot represent an UNAVAILABLE view.
        if not self._is_direct or marker_status.lost:
            return None
        n_views, windows = len(self._views), self._window_names
        n = len(stored) // (n_views + len(windows))
        states: tuple[Sequence[Matrix], Mapping[str, StateProgress]] | None = (), {}
        if windows:
            states = self._windows.read_together(names[n * n_views :], stored[n * n_views :], marker_status, t)
        watermark = self._watermark(marker_status)
        known_to = [min(t, each) for each in watermark[n_views:].tolist()]
        rows = None if self._numbers is None else self._numbers.vectors(stored[: n * n_views], t, known_to)
        if self._numbers is None:
            rows = NumberVectors.of_windows(windows, known_to, n)
        if rows is None or states is None:
            return None
        block = np.concatenate([rows.matrix, *states[0]], axis=1) if windows else rows.matrix
        matrix = self._join.join(block, t, fields)
        return ServiceVectors(matrix, rows.status, rows.event_ts, watermark, rows.versions, states[1])

    def reads(self, names: MaybeBytes, stored: MaybeBytes, marker_status: MarkerStatus, t: Times, n: int) -> ViewReads:
        """Return the decoded rows of each view for n rows; arguments as in ``vectors``, or one ``t`` for each row."""
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
        return self.assemble(replace(states, reads={**rows, **states.reads}), MarkerStatus(), t, request)

    def assemble(self, views: ViewReads, marker_status: MarkerStatus, t: Times, request: ParsedRows) -> ServiceVectors:
        """Return the vectors from the decoded rows of each view at time ``t``, or at one time for each row."""
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
        status, watermark = self._watermarks
        # The same object as in the last read, while the markers have not changed.
        if status is not marker_status:
            markers = map(self.markers_of, self._assembler.plan.all_views)
            watermark = np.array([marker_status.watermark(each) for each in markers], dtype=np.int64)
            self._watermarks = marker_status, watermark
        return watermark


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
        self._parser = RowParser(plan)
        self._integer_key = min(columns)[0] if not plan.windows and len(columns) == 1 and len(min(columns)) == 1 else ""
        self._names = [view.name for view in plan.all_views]
        self._reload_at = 0.0

    def parse(self, columns: Mapping[str, Sequence[object]]) -> ParsedRows:
        """Return parallel columns of a request in the plan's types; see ``RowParser.parse_columns``."""
        return self._parser.build_rows(self._parser.parse_columns(columns))

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
        vectors = self._vectors.vectors(names, stored, marker_status, t, request)
        return OnlineFeatures(
            t=t,
            labels=self._assembler.labels,
            matrix=vectors.matrix,
            status=dict(zip(self._names, vectors.status.T, strict=True)),
            watermarks=dict(zip(self._names, vectors.watermark.tolist(), strict=True)),
            decode=lambda: self._vectors.reads(names, stored, marker_status, t, request.n),
        )

    def _fetch(self, request: ParsedRows, t: int) -> tuple[MaybeBytes, MaybeBytes, MarkerStatus]:
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
