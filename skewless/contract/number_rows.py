"""Packed rows of several views straight to the matrix, for services whose columns are numbers of views.

The same bits as ``RowCodec.decode`` and ``Assembler.assemble`` give, in one step for all views instead of some twenty
for each: of a small request, the steps are the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.checksum import is_whole
from skewless.contract.few_number_rows import FewNumberRows
from skewless.contract.packed_reads import PackedReads
from skewless.contract.plan import FeaturePlan
from skewless.contract.row_layout import Bytes, RowLayout
from skewless.contract.rows import RowCodec, Versions
from skewless.contract.status import Int64Array, Status, StatusArray, row_status
from skewless.contract.vector import Matrix

_PRESENT = np.uint8(Status.PRESENT)
_FEW = 4
_NO_LIMIT = np.iinfo(np.int64).max


class NumberVectors(NamedTuple):
    """What the model sees for n rows.

    Args:
        matrix: float64, C-contiguous, shape ``(n, n_features)``; NaN is missing.
        status: of the row read, shape ``(n, n_views)``.
        event_ts: of the row read, microseconds, shape ``(n, n_views)``; meaningless where none was found.
        versions: per view, where the rows come from; cut out when they are asked for.
    """

    matrix: Matrix
    status: StatusArray
    event_ts: Int64Array
    versions: Mapping[str, Versions]


class NumberRows:
    """Reads the rows of a plan that ``fits``.

    Args:
        plan: the part of the plan that a model pins (``FeaturePlan.only``).
    """

    def __init__(self, plan: FeaturePlan) -> None:
        codecs = [RowCodec(view) for view in plan.views]
        layouts = [RowLayout(view.features) for view in plan.views]
        self._codecs = codecs
        self._blanks = [codec.blank for codec in codecs]
        self._sizes = [layout.size for layout in layouts]
        self._starts = [sum(self._sizes[:i]) for i in range(len(layouts))]
        names = [view.name for view in plan.views]
        self._size = sum(self._sizes)
        self._layouts = layouts
        self._places = {name: (layout, start) for name, layout, start in zip(names, layouts, self._starts, strict=True)}
        self._ttl = np.array([view.ttl_us for view in plan.views], dtype=np.int64)
        self._shortest_ttl = min((view.ttl_us for view in plan.views if view.ttl_us), default=_NO_LIMIT)
        # The bytes that say whose a row is, of all views; then those that say whether it is one.
        self._tag = np.concatenate([self._bytes("view", "format"), self._bytes("flags")])
        self._n_tag = len(self._tag) - len(layouts)
        self._expected = np.frombuffer(b"".join(self._blanks), dtype=np.uint8)[self._tag]
        self._expected[self._n_tag :] = 0
        self._event = self._bytes("event")
        self._nulls = self._bytes("nulls")
        self._place(plan)
        order = None if self._order is None else self._order.tolist()
        self._few = FewNumberRows(layouts, self._blanks, self._ttl.tolist(), order)

    @staticmethod
    def fits(plan: FeaturePlan) -> bool:
        """Say whether a plan's service has nothing but numbers of views, and its views no text."""
        views = {view.name for view in plan.views}
        refs = plan.services[0].features
        return (
            bool(refs)
            and not plan.windows
            and all(ref.group in views for ref in refs)
            and not any(column.dtype.is_text for view in plan.views for column in view.features)
        )

    def vectors(self, rows: Sequence[bytes | None], t: int) -> NumberVectors | None:
        """Return the vectors at time ``t``; None if a row is damaged, as ``RowCodec.decode`` tells.

        Args:
            rows: of the first entity in each view, then of the second, and so on.
        """
        n = len(rows) // len(self._sizes)
        filled = [blank if row is None else row for row, blank in zip(rows, cycle(self._blanks))]
        packed = b"".join(filled)
        if len(packed) != n * self._size or not (is_whole(packed) or self._are_sound(rows)):
            return None
        if 0 < n <= _FEW:
            return self._of_few(packed, n, t)
        # A row of another length moves those behind it, whose tags are then not where they are looked for.
        raw = np.frombuffer(packed, dtype=np.uint8).reshape(n, self._size)
        same = raw.take(self._tag, axis=1) == self._expected
        if not same[:, : self._n_tag].all():
            return None
        event_ts = self._moments(raw)
        nulls = np.unpackbits(raw.take(self._nulls, axis=1), axis=1, bitorder="little").take(self._bit, axis=1)
        if n and same.all() and event_ts.max() <= t and t - event_ts.min() <= self._shortest_ttl:
            status = np.zeros(event_ts.shape, dtype=np.uint8)  # all are PRESENT, as they nearly always are
        else:
            status = row_status(same[:, self._n_tag :], event_ts, t, self._ttl)
            nulls |= (status != _PRESENT).take(self._view, axis=1)
        matrix = self._numbers(raw)
        matrix[nulls.view(np.bool_)] = np.nan
        return NumberVectors(matrix=matrix, status=status, event_ts=event_ts, versions=PackedReads(self._places, raw))

    def _are_sound(self, rows: Sequence[bytes | None]) -> bool:
        """Say whether all rows are what was written: those of a release before have no checksum."""
        step = len(self._codecs)
        return all(codec.sound(rows[i::step]).all() for i, codec in enumerate(self._codecs))

    def _of_few(self, packed: bytes, n: int, t: int) -> NumberVectors | None:
        few = self._few.vectors(packed, t)
        if few is None:
            return None
        versions = PackedReads(self._places, np.frombuffer(packed, dtype=np.uint8).reshape(n, self._size))
        return NumberVectors(matrix=few.matrix, status=few.status, event_ts=few.event_ts, versions=versions)

    def _numbers(self, raw: Bytes) -> Matrix:
        block = np.empty((len(raw), self._width), dtype=np.float64)
        first = 0
        for start, layout in zip(self._starts, self._layouts, strict=True):
            last = first + layout.width
            layout.fill(block[:, first:last], raw[:, start : start + layout.size])
            first = last
        return block if self._order is None else block.take(self._order, axis=1)

    def _moments(self, raw: Bytes) -> Int64Array:
        return RowLayout.moments(raw.take(self._event, axis=1).view(">u8"))

    def _bytes(self, *names: str) -> npt.NDArray[np.intp]:
        """Return where some fields of the head lie, for all views, in rows that stand side by side."""
        places = [
            start + byte
            for start, layout in zip(self._starts, self._layouts, strict=True)
            for name in names
            for byte in layout.bytes_of(name)
        ]
        return np.array(places, dtype=np.intp)

    def _place(self, plan: FeaturePlan) -> None:
        """Find for each column of the matrix its view, its null bit and its place in the block."""
        at: dict[tuple[str, str], tuple[int, int, int]] = {}
        bits = 0
        for i, view in enumerate(plan.views):
            for feature, column in enumerate(view.features):
                at[view.name, column.name] = (i, bits + feature, len(at))
            bits += 8 * len(self._layouts[i].bytes_of("nulls"))
        found = [at[ref.group, ref.name] for ref in plan.services[0].features]
        self._width = len(at)
        self._view, self._bit, order = (np.array(each, dtype=np.intp) for each in zip(*found, strict=True))
        self._order = None if order.tolist() == list(range(len(at))) else order
