"""Select the events that count in a windowed view, and compute their states; stream, log and training share it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import find_nulls, int64_array, shared_numbers
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.transforms import TransformRunner
from skewless.contract.windows.aggregate_inputs import (
    AggregateInputs,
    find_unsummable,
    find_values_beyond,
    measure_columns,
)
from skewless.contract.windows.sketch import NO_HASH, Hashes
from skewless.contract.windows.state_layout import EventOrigins, StateLayout
from skewless.contract.windows.view import WindowView

_Columns = dict[str, pa.Array | npt.NDArray[Any]]
_Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class ViewEvents:
    """The events that count in one view.

    Args:
        rows: their row numbers in the input, growing.
        keys: their entity keys, without nulls.
        origin: their times and log positions.
        words: the state of each event alone, shape ``(width, n)``.
        hashes: hashes of the columns of ``count_distinct``, shape ``(hashed, n)``.
    """

    rows: npt.NDArray[np.intp]
    keys: pa.Table
    origin: EventOrigins
    words: Int64Array
    hashes: Hashes

    def take(self, positions: Int64Array) -> ViewEvents:
        """Return the events at some positions."""
        return ViewEvents(
            rows=self.rows[positions],
            keys=self.keys.take(int64_array(positions)),
            origin=self.origin.take(positions),
            words=self.words[:, positions],
            hashes=self.hashes[:, positions],
        )


class EventSelector:
    """Derives the columns of one view, and selects the events that count in it.

    An event counts if its key is complete, the view's filter is true, and all its values can be summed exactly.

    Attributes:
        columns: names of the columns that the view reads from the log: keys and logged inputs.
    """

    def __init__(self, view: WindowView) -> None:
        self._view = view
        self._layout = StateLayout(view)
        self._runner = None if view.transform is None else TransformRunner.from_view(view, view.transform)
        self.columns = tuple(column.name for column in (*view.keys, *view.logged_inputs))

    def select(self, rows: pa.Table, origin: EventOrigins) -> ViewEvents:
        """Return the events among some log rows that count in the view.

        Args:
            rows: the view's keys and logged inputs, typed as declared.
            origin: origin of each row.
        """
        columns = self._columns(rows, origin.ts)
        selected, measured = self._measure(columns, np.flatnonzero(self._find_counting(rows, columns)))
        all_count = len(selected) == rows.num_rows
        if not all_count:
            origin = origin.take(selected)
        hashes = np.empty((len(self._layout.hashed), len(selected)), dtype=np.uint64)
        for i, name in enumerate(self._layout.hashed):
            hashes[i] = np.where(measured[name].null, NO_HASH, measured[name].hashes)
        keys = rows.select([column.name for column in self._view.keys])
        return ViewEvents(
            rows=selected,
            keys=keys if all_count else keys.take(int64_array(selected)),
            origin=origin,
            words=self._layout.build_states(measured, origin),
            hashes=hashes,
        )

    def find_beyond(self, rows: pa.Table, ts: Int64Array) -> dict[str, BoolArray]:
        """Return, per summed column, the rows that count but for a value that is too large for an exact sum.

        Args:
            ts: event time of each row, microseconds.
        """
        columns = self._columns(rows, ts)
        counts = self._find_counting(rows, columns)
        return {name: too_large & counts for name, too_large in find_values_beyond(self._view, columns).items()}

    def _measure(self, columns: _Columns, rows: _Rows) -> tuple[_Rows, dict[str, AggregateInputs]]:
        """Return which of some rows can be summed, and their aggregate inputs."""
        measured = measure_columns(self._view, _take_rows(columns, rows))
        too_large = find_unsummable(measured, len(rows))
        if too_large.any():
            rows = rows[~too_large]
            measured = measure_columns(self._view, _take_rows(columns, rows))
        return rows, measured

    def _columns(self, rows: pa.Table, ts: Int64Array) -> _Columns:
        """Return keys, inputs and derived columns by name."""
        columns: _Columns = {name: rows[name].combine_chunks() for name in self.columns}
        # True if the event time is an input; it is not among the logged inputs.
        if len(self._view.logged_inputs) < len(self._view.inputs):
            columns[self._view.event_column] = int64_array(ts)
        if self._runner is not None:
            inputs = {ref.name: plain_column(columns[ref.name]) for ref in self._runner.transform.inputs}
            if rows.num_rows:
                columns |= self._runner.run(inputs)
            else:
                outputs = self._runner.transform.outputs
                columns |= {column.name: np.empty(0, dtype=column.dtype.numpy) for column in outputs}
        return columns

    def _find_counting(self, rows: pa.Table, columns: _Columns) -> BoolArray:
        counts = np.ones(rows.num_rows, dtype=np.bool_)
        for key in self._view.keys:
            if rows[key.name].null_count:
                counts &= ~find_nulls(rows[key.name])
        if self._view.filter is not None:
            column = columns[self._view.filter]
            values = plain_column(column) if isinstance(column, pa.Array) else np.asarray(column, dtype=np.float64)
            counts &= (values != 0) & ~np.isnan(values)  # null is not true
        return counts


def _take_rows(columns: _Columns, rows: _Rows) -> _Columns:
    return {name: column if len(column) == len(rows) else _take(column, rows) for name, column in columns.items()}


def _take(column: pa.Array | npt.NDArray[Any], rows: _Rows) -> pa.Array | npt.NDArray[Any]:
    return column.take(int64_array(rows)) if isinstance(column, pa.Array) else column[rows]


def plain_column(column: pa.Array | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an Arrow column as transforms receive it: float64 with NaN for null, or objects for text."""
    if not isinstance(column, pa.Array):
        return column
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        objects = np.empty(len(column), dtype=object)
        objects[:] = column.to_pylist()
        return objects
    if pa.types.is_boolean(kind) or pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    return shared_numbers(column.cast(pa.float64(), safe=False), np.nan)
