"""The states of any ranges of sorted events, for many ranges at once (SEMANTICS 3.3)."""

from __future__ import annotations

import numpy as np

from skewless.contract.status import Int64Array
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.range_extremes import RangeExtremes
from skewless.contract.windows.state_layout import StateLayout
from skewless.contract.windows.view import Function


class RangeStates:
    """The states of ranges of events: sums by prefix, extremes by runs, first and last by neighbours.

    Memory: about the size of the words for sums, three times it for extremes, a quarter for first and last.

    Args:
        layout: of the view.
        words: of the events, shape ``(width, n)``; those of an entity lie together, by (ts, partition, seq).
    """

    def __init__(self, layout: StateLayout, words: Int64Array) -> None:
        self._layout, self._words = layout, words
        self._n = words.shape[1]
        # Differences are right even where a prefix wraps around: that of a range fits.
        self._sums = np.zeros((layout.added, self._n + 1), dtype=np.int64)
        np.cumsum(words[: layout.added], axis=1, out=self._sums[:, 1:])
        self._extremes = {
            key: RangeExtremes(_floats(words[place]), _better(key[1]), np.float64(np.nan))
            for key, place in layout.extremes.items()
        }
        self._moments = {key: self._neighbours(key[1], place + 3) for key, place in layout.moments.items()}

    def of(self, low: Int64Array, high: Int64Array) -> Int64Array:
        """Return the state of each range ``[low, high)``, shape ``(width, m)``; an empty one is that of nothing."""
        layout = self._layout
        result = layout.empty(len(low))
        for place in range(layout.added):
            prefix = self._sums[place]
            result[place] = prefix[high] - prefix[low]
        layout.carry(result)
        for key, place in layout.extremes.items():
            result[place] = self._extremes[key].of(low, high).view(np.int64)
        for (column, function), place in layout.moments.items():
            neighbour = self._moments[column, function]
            chosen = neighbour[low] if function is Function.FIRST else neighbour[high]
            some = np.flatnonzero((chosen >= low) & (chosen < high))
            result[place : place + 4, some] = self._words[place : place + 4, chosen[some]]
        return result

    def _neighbours(self, function: Function, place: int) -> Int64Array:
        """Return for each place, 0 to n, the next event with a value, or the one before it; n and -1: none."""
        null = np.isnan(_floats(self._words[place]))
        places = np.arange(self._n)
        result = np.empty(self._n + 1, dtype=np.int64)
        if function is Function.FIRST:
            result[self._n] = self._n
            result[:-1] = np.where(null, self._n, places)
            np.minimum.accumulate(result[::-1], out=result[::-1])
        else:
            result[0] = -1
            result[1:] = np.where(null, -1, places)
            np.maximum.accumulate(result, out=result)
        return result


def _better(function: Function) -> np.ufunc:
    return np.fmin if function is Function.MIN else np.fmax


def _floats(bits: Int64Array) -> Floats:
    return bits.view(np.float64)
