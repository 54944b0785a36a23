"""What ``NumberRows`` does, for a row or two: there a step of numpy costs more than the row itself."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from skewless.contract.dtypes import DType
from skewless.contract.row_layout import RowLayout
from skewless.contract.status import Int64Array, Status, StatusArray
from skewless.contract.vector import Matrix

_CODES = {
    DType.FLOAT64: "d",
    DType.FLOAT32: "f",
    DType.INT64: "q",
    DType.TIMESTAMP: "q",
    DType.INT32: "i",
    DType.BOOL: "?",
}
_SIGN = 1 << 63
_PRESENT, _NOT_FOUND, _EXPIRED, _FUTURE = map(int, (Status.PRESENT, Status.NOT_FOUND, Status.EXPIRED, Status.FUTURE))


class FewVectors(NamedTuple):
    """Matrix, status and event times as in ``NumberVectors``."""

    matrix: Matrix
    status: StatusArray
    event_ts: Int64Array


@dataclass(frozen=True, slots=True)
class _View:
    """Where the parts of one view's row lie, in rows that stand side by side.

    Args:
        owner: the bytes that say whose a row is, and in which format.
        columns: which values of the whole row are the view's.
        ttl_us: 0: no limit.
    """

    event: slice
    view: slice
    format: slice
    owner: bytes
    flags: int
    nulls: slice
    columns: range
    ttl_us: int

    def status(self, row: bytes, event_ts: int, t: int) -> int:
        """Return what ``row_status`` says of one row."""
        if row[self.flags]:
            return _NOT_FOUND
        if event_ts > t:
            return _FUTURE
        return _EXPIRED if 0 < self.ttl_us < t - event_ts else _PRESENT


class FewNumberRows:
    """Reads rows of several views that stand side by side.

    Args:
        layouts: of each view.
        blanks: what stands for a row that is not there, of each view.
        ttl_us: of each view.
        order: which columns of the views, end to end, are the columns of the matrix; None: all in their order.
    """

    def __init__(
        self,
        layouts: Sequence[RowLayout],
        blanks: Sequence[bytes],
        ttl_us: Sequence[int],
        order: Sequence[int] | None,
    ) -> None:
        self._size = sum(layout.size for layout in layouts)
        self._order = order
        self._views: list[_View] = []
        code, start, first = "<", 0, 0
        for layout, blank, ttl in zip(layouts, blanks, ttl_us, strict=True):
            self._views.append(_view(layout, blank, ttl, start, first))
            columns = "".join(_CODES[dtype] for dtype in layout.dtypes)
            code += f"{layout.size - struct.calcsize('<' + columns)}x{columns}"
            start, first = start + layout.size, first + layout.width
        self._unpack = struct.Struct(code).unpack

    def vectors(self, packed: bytes, t: int) -> FewVectors | None:
        """Return the vectors at time ``t``; None if a row is not one of its view.

        Args:
            packed: the rows, a whole number of them.
        """
        rows: list[list[float]] = []
        status: list[list[int]] = []
        events: list[list[int]] = []
        for start in range(0, len(packed), self._size):
            row = packed[start : start + self._size]
            values = list(self._unpack(row))
            times: list[int] = []
            codes: list[int] = []
            for view in self._views:
                if row[view.view] + row[view.format] != view.owner:
                    return None
                event_ts = int.from_bytes(row[view.event], "big") - _SIGN
                code = view.status(row, event_ts, t)
                times.append(event_ts)
                codes.append(code)
                nulls = int.from_bytes(row[view.nulls], "little")
                if code or nulls:
                    _blank(values, view.columns, -1 if code else nulls)
            rows.append(values if self._order is None else [values[i] for i in self._order])
            status.append(codes)
            events.append(times)
        return FewVectors(
            np.array(rows, dtype=np.float64),
            np.array(status, dtype=np.uint8),
            np.array(events, dtype=np.int64),
        )


def _blank(values: list[float], columns: range, nulls: int) -> None:
    """Make NaN of the values whose bit is set."""
    for place, column in enumerate(columns):
        if nulls >> place & 1:
            values[column] = math.nan


def _view(layout: RowLayout, blank: bytes, ttl_us: int, start: int, first: int) -> _View:
    def part(name: str) -> slice:
        found = layout.bytes_of(name)
        return slice(start + found.start, start + found.stop) if found else slice(0, 0)

    view, form = layout.bytes_of("view"), layout.bytes_of("format")
    return _View(
        event=part("event"),
        view=part("view"),
        format=part("format"),
        owner=blank[view.start : view.stop] + blank[form.start : form.stop],
        flags=part("flags").start,
        nulls=part("nulls"),
        columns=range(first, first + layout.width),
        ttl_us=ttl_us,
    )
