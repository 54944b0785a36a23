"""Packed rows of several views straight to the matrix, for services whose columns are numbers of views.

The same bits as ``RowCodec.decode`` and ``Assembler.assemble`` give, in one step for all views instead of some twenty
for each: of a small request, the steps are the time.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import accumulate, cycle
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.checksum import is_whole
from skewless.contract.plan import FeaturePlan
from skewless.contract.reads import PackedReads
from skewless.contract.rows import RowCodec, Versions
from skewless.contract.status import Int64Array, Status, StatusArray, row_status
from skewless.contract.vector import Matrix

_PRESENT = np.uint8(Status.PRESENT)
_NOT_FOUND, _EXPIRED, _FUTURE = map(int, (Status.NOT_FOUND, Status.EXPIRED, Status.FUTURE))
_SIGN = np.int64(-(2**63))
_PAST = 1 << 63  # what is added to a time in a row
_FEW = 4  # rows, up to which numpy takes longer for its steps than for the rows; most of all where they are seldom warm
_NO_LIMIT = 2**63 - 1
_NO = b"\0"


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
        self._codecs = [RowCodec(view) for view in plan.views]
        self._layouts = [codec.layout for codec in self._codecs]
        self._blanks = [codec.blank for codec in self._codecs]
        self._record = np.dtype([(v.name, layout.record) for v, layout in zip(plan.views, self._layouts, strict=True)])
        self._size = self._record.itemsize
        self._ttl = np.array([view.ttl_us for view in plan.views], dtype=np.int64)
        self._shortest_ttl = np.uint64(min((view.ttl_us for view in plan.views if view.ttl_us), default=_NO_LIMIT))
        # The bytes that say whose a row is, of all views; then those that say whether it is one.
        self._head = np.concatenate([self._bytes("view", "format"), self._bytes("flags")])
        self._expected = np.frombuffer(b"".join(self._blanks), dtype=np.uint8)[self._head]
        self._expected[-len(self._blanks) :] = 0
        self._plain = self._expected.tobytes()
        self._event = self._bytes("event", step=-1)
        self._nulls = self._bytes("nulls")
        self._unpacked = struct.Struct("<" + "".join(layout.number_code for layout in self._layouts)).iter_unpack
        heads = [
            next(struct.iter_unpack("<" + each.number_code, blank))
            for each, blank in zip(self._layouts, self._blanks, strict=True)
        ]
        self._views = [(head[1:3], len(head), view.ttl_us) for head, view in zip(heads, plan.views, strict=True)]
        self._place(plan)

    @staticmethod
    def fits(plan: FeaturePlan) -> bool:
        """Say whether a plan's service has nothing but numbers of views, and its views are without text.

        Of a view that changed, a plan may hold two versions under one name: these are not for here.
        """
        views = {view.name for view in plan.views}
        refs = plan.services[0].features
        return (
            bool(refs)
            and len(views) == len(plan.views)
            and not plan.windows
            and all(ref.group in views for ref in refs)
            and not any(column.dtype.is_text for view in plan.views for column in view.features)
        )

    def vectors(self, rows: Sequence[bytes | None], t: int) -> NumberVectors | None:
        """Return the vectors at time ``t``; None if a row is damaged, as ``RowCodec.decode`` tells.

        Args:
            rows: of the first entity in each view, then of the second, and so on.
        """
        n_views = len(self._blanks)
        n = len(rows) // n_views
        packed = b"".join([blank if row is None else row for row, blank in zip(rows, cycle(self._blanks))])
        if len(packed) != n * self._size or not (is_whole(packed) or self._are_sound(rows)):
            return None
        if 0 < n <= _FEW:
            return self._few(packed, t)
        raw = np.frombuffer(packed, dtype=np.uint8).reshape(n, self._size)
        event_ts = raw.take(self._event, axis=1).view(np.int64) ^ _SIGN
        ages = (t - event_ts).view(np.uint64)  # of a row of the future it is beyond any ttl
        head, nulls = raw.take(self._head, axis=1), raw.take(self._nulls, axis=1)
        # Steps of bytes where they do: those of numpy take ten times as long for a few rows.
        present = head.tobytes() == self._plain * n and _NO not in (ages <= self._shortest_ttl).tobytes()
        if present:
            status = np.zeros(event_ts.shape, dtype=np.uint8)
        else:
            same = head == self._expected
            # A row of another length moves those behind it, whose heads are then not where they are looked for.
            if not same[:, :-n_views].all():
                return None
            status = row_status(same[:, -n_views:], event_ts, t, self._ttl)
        matrix = self._numbers(packed, n)
        if not present or nulls.tobytes().strip(_NO):
            blank = np.unpackbits(nulls, axis=1, bitorder="little").take(self._bit, axis=1)
            if not present:
                blank |= (status != _PRESENT).take(self._view, axis=1)
            matrix[blank.view(np.bool_)] = np.nan
        return NumberVectors(matrix, status, event_ts, PackedReads(self._record, packed))

    def _numbers(self, packed: bytes, n: int) -> Matrix:
        """Return the values, whatever is null."""
        block = np.empty((n, self._width), dtype=np.float64)
        records, first = np.frombuffer(packed, self._record), 0
        for view, layout in zip(self._record.names or (), self._layouts, strict=True):
            layout.fill(block[:, first : first + layout.width], records[view])
            first += layout.width
        return block if self._order is None else block.take(self._order, axis=1)

    def _few(self, packed: bytes, t: int) -> NumberVectors | None:
        """Do what ``vectors`` does, value by value."""
        matrix: list[list[float]] = []
        status: list[list[int]] = []
        event_ts: list[list[int]] = []
        for row in self._unpacked(packed):
            values: list[float] = []
            codes: list[int] = []
            times: list[int] = []
            start = 0
            for owner, length, ttl_us in self._views:
                event, mark, form, flags, nulls = row[start : start + 5]
                if (mark, form) != owner:
                    return None
                moment = int.from_bytes(event, "big") - _PAST
                late, bits = t - moment, int.from_bytes(nulls, "little")
                code = _NOT_FOUND if flags else _FUTURE if late < 0 else _EXPIRED if 0 < ttl_us < late else 0
                found = row[start + 5 : start + length]
                if code or bits:
                    values += [math.nan if code or bits >> i & 1 else value for i, value in enumerate(found)]
                else:
                    values += found
                codes.append(code)
                times.append(moment)
                start += length
            matrix.append(values if self._order is None else [values[place] for place in self._places])
            status.append(codes)
            event_ts.append(times)
        return NumberVectors(
            np.array(matrix, dtype=np.float64),
            np.array(status, dtype=np.uint8),
            np.array(event_ts, dtype=np.int64),
            PackedReads(self._record, packed),
        )

    def _are_sound(self, rows: Sequence[bytes | None]) -> bool:
        """Say whether all rows are what was written: those of a release before have no checksum."""
        step = len(self._codecs)
        return all(codec.sound(rows[i::step]).all() for i, codec in enumerate(self._codecs))

    def _bytes(self, *names: str, step: int = 1) -> npt.NDArray[np.intp]:
        """Return where some fields of the head lie, for all views, in rows that stand side by side."""
        starts = accumulate([0, *(layout.size for layout in self._layouts[:-1])])
        places = [
            start + byte
            for start, layout in zip(starts, self._layouts, strict=True)
            for name in names
            for byte in layout.bytes_of(name)[::step]
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
        self._places = order.tolist()
        self._order = None if self._places == list(range(len(at))) else order
