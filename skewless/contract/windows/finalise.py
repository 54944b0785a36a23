"""Compute features, float64, from merged states; training and serving share it (SEMANTICS 3.4)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from skewless.contract.status import Int64Array
from skewless.contract.windows.fixed_point import Floats, quotient, variance
from skewless.contract.windows.state_layout import StateLayout
from skewless.contract.windows.view import Aggregate, Function, WindowView


class Finaliser:
    """Computes the features of one view from its states."""

    def __init__(self, view: WindowView) -> None:
        self._view = view
        self._layout = StateLayout(view)

    def compute_feature(self, item: Aggregate, words: Int64Array, distincts: Mapping[str, Floats]) -> Floats:
        """Return one feature, shape ``(n,)``; NaN is null. Of an empty window, all features but counts are null.

        Args:
            words: merged states over the feature's window, shape ``(width, n)``.
            distincts: per column of ``count_distinct``, the number of distinct values in the windows.
        """
        function, column = item.function, item.column
        if function is Function.COUNT_DISTINCT:
            return distincts[column]
        if function in {Function.MIN, Function.MAX}:
            return _floats(words[self._layout.extremes[column, function]])
        if function in {Function.FIRST, Function.LAST}:
            return _floats(words[self._layout.first_last[column, function] + 3])
        return self._compute_sum(item, words)

    def _compute_sum(self, item: Aggregate, words: Int64Array) -> Floats:
        position = self._layout.sums[item.column]
        n, scale = words[position], self._view.scales.get(item.column, 0)
        if item.function is Function.COUNT:
            return np.asarray(n, dtype=np.float64)
        result = np.full(len(n), np.nan)
        spread = item.function in {Function.VAR, Function.STD}
        defined = np.flatnonzero(n >= (2 if spread else 1))
        chosen = words[position : position + (6 if spread else 3), defined]
        if spread:
            values = variance(chosen[0], chosen[1:3], chosen[3:6], scale)
            result[defined] = np.sqrt(values) if item.function is Function.STD else values
        else:
            divisor = np.ones(len(defined), dtype=np.int64) if item.function is Function.SUM else chosen[0]
            result[defined] = quotient(chosen[1:3], divisor, scale)
        return result


def _floats(bits: Int64Array) -> Floats:
    return np.array(bits).view(np.float64)
