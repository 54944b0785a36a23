"""Convert the columns of events to the inputs of aggregates: nulls, floats, fixed-point numbers and hashes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import find_nulls, shared_numbers, typed_array
from skewless.contract.arrow_types import arrow_type
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.fixed_point import SQUARE_LIMIT, SUM_LIMIT, Floats, quantise
from skewless.contract.windows.sketch import hash_numbers, hash_texts
from skewless.contract.windows.view import SQUARED, SUMMED, Function, WindowView

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class AggregateInputs:
    """One column of n events; an array that no aggregate needs is empty.

    Args:
        null: null or NaN.
        value: float64; NaN where null; -0.0 is 0.0.
        fixed: int64, scaled by the column's decimal digits; 0 where null.
        hashes: hashes of the canonical bytes; meaningless where null.
        beyond: where the value is too large for an exact sum.
    """

    null: BoolArray
    value: Floats
    fixed: Int64Array
    hashes: Hashes
    beyond: BoolArray


def sum_limit(view: WindowView, column: str) -> int | None:
    """Return the limit of the size of a column's fixed-point numbers; None: the column is not summed."""
    functions = {item.function for item in view.aggregates if item.column == column}
    if functions & SQUARED:
        return SQUARE_LIMIT
    return SUM_LIMIT if functions & SUMMED else None


def sum_limits(view: WindowView) -> dict[str, int]:
    """Return the limit of the size of fixed-point numbers for each summed column."""
    columns = dict.fromkeys(item.column for item in view.aggregates)
    return {name: limit for name in columns if (limit := sum_limit(view, name)) is not None}


def measure_columns(view: WindowView, columns: Mapping[str, pa.Array | npt.NDArray[Any]]) -> dict[str, AggregateInputs]:
    """Return the aggregate inputs of a view for n events, by column.

    Args:
        columns: the columns that the aggregates read: Arrow from the log, or numpy from a transform (None or NaN for
            null).
    """
    return {
        name: _measure_column(view, name, columns[name])
        for name in dict.fromkeys(item.column for item in view.aggregates)
    }


def find_unsummable(measured: Mapping[str, AggregateInputs], n: int) -> BoolArray:
    """Return which of n events have a value that is too large for an exact sum: they do not count in the view.

    Such an event was accepted before the view summed its column; later events of this kind are rejected.
    """
    too_large = np.zeros(n, dtype=np.bool_)
    for column in measured.values():
        if len(column.beyond):
            too_large |= column.beyond
    return too_large


def find_values_beyond(view: WindowView, columns: Mapping[str, pa.Array | npt.NDArray[Any]]) -> dict[str, BoolArray]:
    """Return, for each summed column, where its values are too large for an exact sum."""
    too_large = {}
    for name, limit in sum_limits(view).items():
        numbers, null = _numbers(columns[name])
        beyond = quantise(numbers, view.scales.get(name, 0), limit)[1]
        too_large[name] = np.asarray(beyond & ~null, dtype=np.bool_)
    return too_large


def _measure_column(view: WindowView, name: str, column: pa.Array | npt.NDArray[Any]) -> AggregateInputs:
    functions = {item.function for item in view.aggregates if item.column == name}
    hashed = Function.COUNT_DISTINCT in functions
    value, hashes = np.empty(0, dtype=np.float64), np.empty(0, dtype=np.uint64)
    fixed, beyond = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_)
    if view.dtype(name).is_text:
        texts = column if isinstance(column, pa.Array) else typed_array(list(column), arrow_type(view.dtype(name)))
        null = find_nulls(texts)
        if hashed:
            hashes = hash_texts(texts)
    else:
        numbers, null = _numbers(column)
        value = numbers.astype(np.float64) + 0.0  # -0.0 becomes 0.0
        value[null] = np.nan
        limit = sum_limit(view, name)
        if limit is not None:
            fixed, beyond = quantise(np.where(null, 0, numbers), view.scales.get(name, 0), limit)
        if hashed:
            hashes = hash_numbers(np.where(null, 0, numbers))
    return AggregateInputs(null=null, value=value, fixed=fixed, hashes=hashes, beyond=beyond)


def _numbers(column: pa.Array | npt.NDArray[Any]) -> tuple[npt.NDArray[Any], BoolArray]:
    """Return a column's numbers, float64 or int64, and where they are null; null numbers are 0 or NaN."""
    if isinstance(column, pa.Array):
        null = find_nulls(column)
        if pa.types.is_boolean(column.type) or pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        numbers = shared_numbers(column, 0)
    else:
        numbers = np.asarray(column)
        null = np.zeros(len(numbers), dtype=np.bool_)
    if numbers.dtype.kind == "f":
        numbers = numbers.astype(np.float64, copy=False)
        return numbers, np.asarray(null | np.isnan(numbers), dtype=np.bool_)
    return numbers.astype(np.int64, copy=False), null
