"""The columns of events as aggregates take them: null or not, as a float, as a fixed-point number, as a hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.fixed_point import SQUARE_LIMIT, SUM_LIMIT, Floats, quantise
from skewless.contract.windows.sketch import hash_numbers, hash_texts
from skewless.contract.windows.view import SQUARED, SUMMED, Function, WindowView

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class AggregateInputs:
    """One column of n events; what no aggregate needs is empty.

    Args:
        null: where there is no value; NaN is none.
        value: float64; NaN where null; -0.0 is 0.0.
        fixed: int64, scaled by the column's decimal digits; 0 where null.
        hashes: of the canonical bytes; meaningless where null.
        beyond: where the value is too large to be summed exactly.
    """

    null: BoolArray
    value: Floats
    fixed: Int64Array
    hashes: Hashes
    beyond: BoolArray


def limit(view: WindowView, column: str) -> int | None:
    """Return below which size a column's fixed-point numbers must stay; None: it is not summed."""
    functions = {item.function for item in view.aggregates if item.column == column}
    if functions & SQUARED:
        return SQUARE_LIMIT
    return SUM_LIMIT if functions & SUMMED else None


def limits(view: WindowView) -> dict[str, int]:
    """Return below which size the fixed-point numbers of each summed column must stay."""
    columns = dict.fromkeys(item.column for item in view.aggregates)
    return {name: most for name in columns if (most := limit(view, name)) is not None}


def measure(view: WindowView, columns: Mapping[str, pa.Array | npt.NDArray[Any]]) -> dict[str, AggregateInputs]:
    """Return what the aggregates of a view take of n events.

    Args:
        columns: the columns that the aggregates read: Arrow as in the log, or numpy as a transform returns them
            (None or NaN for null).
    """
    return {
        name: _measure(view, name, columns[name]) for name in dict.fromkeys(item.column for item in view.aggregates)
    }


def unsummable(measured: Mapping[str, AggregateInputs], n: int) -> BoolArray:
    """Return which of n events have a value that is too large to be summed exactly: they do not count in the view.

    Such an event was accepted before the view summed its column; later ones are refused.
    """
    out = np.zeros(n, dtype=np.bool_)
    for column in measured.values():
        if len(column.beyond):
            out |= column.beyond
    return out


def beyond(view: WindowView, columns: Mapping[str, pa.Array | npt.NDArray[Any]]) -> dict[str, BoolArray]:
    """Return, for each summed column, where its values are too large to be summed exactly."""
    found = {}
    for name, most in limits(view).items():
        numbers, null = _numbers(columns[name])
        out = quantise(numbers, view.scales.get(name, 0), most)[1]
        found[name] = np.asarray(out & ~null, dtype=np.bool_)
    return found


def _measure(view: WindowView, name: str, column: pa.Array | npt.NDArray[Any]) -> AggregateInputs:
    functions = {item.function for item in view.aggregates if item.column == name}
    hashed = Function.COUNT_DISTINCT in functions
    nothing = np.empty(0, dtype=np.float64)
    if view.dtype(name).is_text:
        texts = column if isinstance(column, pa.Array) else pa.array(list(column))
        null = np.asarray(texts.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)
        hashes = hash_texts(texts) if hashed else np.empty(0, dtype=np.uint64)
        return AggregateInputs(
            null=null,
            value=nothing,
            fixed=np.empty(0, dtype=np.int64),
            hashes=hashes,
            beyond=np.empty(0, dtype=np.bool_),
        )
    numbers, null = _numbers(column)
    value = numbers.astype(np.float64) + 0.0  # -0.0 becomes 0.0
    value[null] = np.nan
    most = limit(view, name)
    fixed, out = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_)
    if most is not None:
        fixed, out = quantise(np.where(null, 0, numbers), view.scales.get(name, 0), most)
    hashes = hash_numbers(np.where(null, 0, numbers)) if hashed else np.empty(0, dtype=np.uint64)
    return AggregateInputs(null=null, value=value, fixed=fixed, hashes=hashes, beyond=out)


def _numbers(column: pa.Array | npt.NDArray[Any]) -> tuple[npt.NDArray[Any], BoolArray]:
    """Return a column's numbers, float64 or int64, and where they are null; there they are 0 or NaN."""
    if isinstance(column, pa.Array):
        null = np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)
        if pa.types.is_boolean(column.type) or pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        filled = column.fill_null(pa.scalar(0).cast(column.type)) if column.null_count else column
        numbers = filled.to_numpy(zero_copy_only=False)
    else:
        numbers = np.asarray(column)
        null = np.zeros(len(numbers), dtype=np.bool_)
    if numbers.dtype.kind == "f":
        numbers = numbers.astype(np.float64)
        return numbers, np.asarray(null | np.isnan(numbers), dtype=np.bool_)
    return numbers.astype(np.int64), null
