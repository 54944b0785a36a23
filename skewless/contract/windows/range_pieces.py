"""Ranges of a sorted array without some of its elements.

A mark says which elements do not count for a query: those whose value is beyond the query's limit. A tree of
largest and smallest values finds them without looking at each: a node whose largest value is within the limit
holds none, and one whose smallest is beyond it is left out as a whole::

    range      [--------------------------)
    left out        xxx        x    xxxx
    pieces     [---)   [------) [--)    [-)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.range_extremes import RangeExtremes
from skewless.contract.windows.state_layout import EVER, NEVER


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Ranges ``[low, high)``, each of a query, by query and then growing."""

    query: Int64Array
    low: Int64Array
    high: Int64Array

    def __len__(self) -> int:
        return len(self.query)

    @classmethod
    def none(cls) -> Ranges:
        """Return no ranges."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(query=nothing, low=nothing, high=nothing)

    @classmethod
    def joined(cls, parts: Sequence[Ranges]) -> Ranges:
        """Return disjoint ranges in order; neighbours that touch become one."""
        query, low, high = (
            np.concatenate([getattr(part, name) for part in (cls.none(), *parts)]) for name in ("query", "low", "high")
        )
        order = np.lexsort((low, query))
        query, low, high = query[order], low[order], high[order]
        begins = np.ones(len(order), dtype=np.bool_)
        begins[1:] = (query[1:] != query[:-1]) | (low[1:] != high[:-1])
        starts = np.flatnonzero(begins)
        ends = np.append(starts[1:], len(order))[: len(starts)] - 1
        return cls(query=query[starts], low=low[starts], high=high[ends])


class LimitFilter:
    """Leaves out elements whose value is beyond a query's limit.

    Args:
        values: of the elements, int64, shape ``(n,)``.
    """

    def __init__(self, values: Int64Array) -> None:
        self._most = RangeExtremes(values, np.maximum, EVER)
        self._largest, self._smallest = [values], [values]
        while len(self._largest[-1]) > 1:
            self._largest.append(_halved(self._largest[-1], np.maximum, EVER))
            self._smallest.append(_halved(self._smallest[-1], np.minimum, NEVER))

    def left_out(self, low: Int64Array, high: Int64Array, limit: Int64Array, most: int | None = None) -> Ranges | None:
        """Return which parts of ranges ``[low, high)`` are beyond their limits; None: more than ``most``.

        >>> LimitFilter(np.array([1, 9, 9, 1])).left_out(np.array([0, 2]), np.array([4, 4]), np.array([5, 9]))
        Ranges(query=array([0]), low=array([1]), high=array([3]))
        """
        touched = np.flatnonzero(self._most.of(low, high) > limit)
        length = (high - low)[touched]
        start = np.frexp(length.astype(np.float64))[1].astype(np.int64) - 1
        query = node = np.empty(0, dtype=np.int64)
        found: list[Ranges] = []
        for level in range(int(start.max(initial=-1)), -1, -1):
            new = touched[start == level]
            # A range is shorter than two nodes of its level, so it touches three at most.
            query = np.concatenate([query, query, np.tile(new, 3)])
            node = np.concatenate([2 * node, 2 * node + 1, *((low[new] >> level) + i for i in range(3))])
            begin, end = node << level, (node + 1) << level
            place = np.minimum(node, len(self._largest[level]) - 1)
            open_ = (begin < high[query]) & (end > low[query]) & (self._largest[level][place] > limit[query])
            whole = open_ & (begin >= low[query]) & (end <= high[query]) & self._beyond(level, place, limit[query])
            found.append(Ranges(query=query[whole], low=begin[whole], high=end[whole]))
            query, node = query[open_ & ~whole], node[open_ & ~whole]
            if most is not None and len(query) + sum(map(len, found)) > most:
                return None
        return Ranges.joined(found)

    def _beyond(self, level: int, node: Int64Array, limit: Int64Array) -> BoolArray:
        return np.asarray(self._smallest[level][node] > limit, dtype=np.bool_)


def pieces(low: Int64Array, high: Int64Array, out: Ranges) -> Ranges:
    """Return what is left of ranges ``[low, high)``, one for each query: at least one piece each, maybe empty.

    Args:
        out: what is left out; it may begin before the range, and ends within it.

    >>> out = Ranges(query=np.array([1, 1]), low=np.array([2, 5]), high=np.array([3, 6]))
    >>> left = pieces(np.array([0, 0]), np.array([9, 6]), out)
    >>> list(zip(left.query.tolist(), left.low.tolist(), left.high.tolist()))
    [(0, 0, 9), (1, 0, 2), (1, 3, 5), (1, 6, 6)]
    """
    inside = out.high > low[out.query]
    query, begin, end = out.query[inside], out.low[inside], out.high[inside]
    counts = np.bincount(query, minlength=len(low))
    offset = np.cumsum(counts + 1) - counts - 1
    rank = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
    lows, highs = np.empty((2, len(low) + len(query)), dtype=np.int64)
    lows[offset], highs[offset + counts] = low, high
    highs[offset[query] + rank] = np.maximum(begin, low[query])
    lows[offset[query] + rank + 1] = end
    return Ranges(query=np.repeat(np.arange(len(low)), counts + 1), low=lows, high=highs)


def _halved(values: Int64Array, better: np.ufunc, nothing: np.int64) -> Int64Array:
    even = values if len(values) % 2 == 0 else np.append(values, nothing)
    return np.asarray(better(even[::2], even[1::2]), dtype=np.int64)
