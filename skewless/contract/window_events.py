"""Events as one view sees them: derived, filtered and measured, by the same code for stream, log and training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.transforms import TransformRunner
from skewless.contract.windows.aggregate_inputs import AggregateInputs, beyond, measure, unsummable
from skewless.contract.windows.sketch import NO_HASH, Hashes
from skewless.contract.windows.state_layout import EventOrigins, StateLayout
from skewless.contract.windows.view import WindowView

_Columns = dict[str, pa.Array | npt.NDArray[Any]]
_Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class ViewEvents:
    """The events that count in one view.

    Args:
        rows: which of the rows they are, growing.
        keys: their entity keys, without nulls.
        origin: where they come from.
        words: the state that each makes by itself, shape ``(width, n)``.
        hashes: of the columns of ``count_distinct``, shape ``(hashed, n)``.
    """

    rows: npt.NDArray[np.intp]
    keys: pa.Table
    origin: EventOrigins
    words: Int64Array
    hashes: Hashes

    def take(self, places: Int64Array) -> ViewEvents:
        """Return some of them."""
        origin = self.origin
        return ViewEvents(
            rows=self.rows[places],
            keys=self.keys.take(pa.array(places)),
            origin=EventOrigins(ts=origin.ts[places], partition=origin.partition[places], seq=origin.seq[places]),
            words=self.words[:, places],
            hashes=self.hashes[:, places],
        )


class EventLens:
    """Looks at events through one view."""

    def __init__(self, view: WindowView) -> None:
        self._view = view
        self._layout = StateLayout(view)
        self._runner = None if view.transform is None else TransformRunner.of_events(view, view.transform)
        self.columns = tuple(column.name for column in (*view.keys, *view.logged_inputs))

    def look(self, rows: pa.Table, origin: EventOrigins) -> ViewEvents:
        """Return the events of some log rows that count: their keys are whole, the filter holds, and all can be summed.

        Args:
            rows: the view's keys and logged inputs, typed as declared.
            origin: of each row.
        """
        columns = self._columns(rows, origin.ts)
        kept, measured = self._measured(columns, np.flatnonzero(self._counts(rows, columns)))
        whole = len(kept) == rows.num_rows
        if not whole:
            origin = EventOrigins(ts=origin.ts[kept], partition=origin.partition[kept], seq=origin.seq[kept])
        hashes = np.empty((len(self._layout.hashed), len(kept)), dtype=np.uint64)
        for i, name in enumerate(self._layout.hashed):
            hashes[i] = np.where(measured[name].null, NO_HASH, measured[name].hashes)
        keys = rows.select([column.name for column in self._view.keys])
        return ViewEvents(
            rows=kept,
            keys=keys if whole else keys.take(pa.array(kept)),
            origin=origin,
            words=self._layout.of_events(measured, origin),
            hashes=hashes,
        )

    def beyond(self, rows: pa.Table, ts: Int64Array) -> dict[str, BoolArray]:
        """Return, per summed column, which rows would count if their value were not too large for an exact sum.

        Args:
            ts: event time of each row, microseconds.
        """
        columns = self._columns(rows, ts)
        counts = self._counts(rows, columns)
        return {name: out & counts for name, out in beyond(self._view, columns).items()}

    def _measured(self, columns: _Columns, kept: _Rows) -> tuple[_Rows, dict[str, AggregateInputs]]:
        """Return which of some rows can be summed, and what they hold."""
        measured = measure(self._view, _taken(columns, kept))
        out = unsummable(measured, len(kept))
        if out.any():
            kept = kept[~out]
            measured = measure(self._view, _taken(columns, kept))
        return kept, measured

    def _columns(self, rows: pa.Table, ts: Int64Array) -> _Columns:
        """Return keys, inputs and what is derived from them, by name."""
        columns: _Columns = {name: rows[name].combine_chunks() for name in self.columns}
        if len(self._view.logged_inputs) < len(self._view.inputs):
            columns[self._view.event_column] = pa.array(ts, pa.int64())
        if self._runner is not None:
            inputs = {ref.name: _plain(columns[ref.name]) for ref in self._runner.transform.inputs}
            columns |= self._runner.run(inputs) if rows.num_rows else self._nothing()
        return columns

    def _nothing(self) -> dict[str, npt.NDArray[Any]]:
        outputs = () if self._view.transform is None else self._view.transform.outputs
        return {column.name: np.empty(0, dtype=column.dtype.numpy) for column in outputs}

    def _counts(self, rows: pa.Table, columns: _Columns) -> BoolArray:
        counts = np.ones(rows.num_rows, dtype=np.bool_)
        for key in self._view.keys:
            if rows[key.name].null_count:
                counts &= np.asarray(rows[key.name].is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
        if self._view.filter is not None:
            wanted = columns[self._view.filter]
            shown = _plain(wanted) if isinstance(wanted, pa.Array) else np.asarray(wanted, dtype=np.float64)
            counts &= (shown != 0) & ~np.isnan(shown)
        return counts


def _taken(columns: _Columns, kept: _Rows) -> _Columns:
    return {name: column if len(column) == len(kept) else _some(column, kept) for name, column in columns.items()}


def _some(column: pa.Array | npt.NDArray[Any], kept: _Rows) -> pa.Array | npt.NDArray[Any]:
    return column.take(pa.array(kept)) if isinstance(column, pa.Array) else column[kept]


def _plain(column: pa.Array | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an Arrow column as transforms see it: float64 with NaN for null, or objects for text."""
    if not isinstance(column, pa.Array):
        return column
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        objects = np.empty(len(column), dtype=object)
        objects[:] = column.to_pylist()
        return objects
    if pa.types.is_boolean(kind) or pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
