"""Ranges of an array, many at once: their extremes, their parts without excluded elements, and binary search.

For the minimum or maximum of a range, the array is divided into blocks of 16, with sparse tables over the blocks. A
range over several blocks consists of the rest of its first block, the start of its last block, and the blocks between,
which are two overlapping runs of a power of two blocks::

    blocks  |----|----|----|----|----|----|
    range      [----------------------)
    first      |--|         last |----|
    between       |---------|
                       |---------|

So a range takes four look-ups, whatever its length, and the tables about three times the memory of the array.

A query excludes the elements with a value greater than its limit. A tree of largest and smallest values finds them
without reading each element: a node whose largest value is within the limit has no excluded element, and a node whose
smallest value is beyond the limit is excluded completely::

    range      [--------------------------)
    excluded        xxx        x    xxxx
    parts      [---)   [------) [--)    [-)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Int64Array
from skewless.contract.windows.state_layout import EVER, NEVER

_Numbers = npt.NDArray[Any]
_BITS = 4
_BLOCK = 1 << _BITS


class RangeExtremes:
    """The extremes of ranges of one array.

    Args:
        values: float64 or int64, shape ``(n,)``.
        better: the ufunc that chooses one of two values, for example ``np.fmin``.
        neutral: the neutral element of ``better``: the result for an empty range.
    """

    def __init__(self, values: _Numbers, better: np.ufunc, neutral: np.generic) -> None:
        self._better, self._neutral = better, neutral
        blocks = max(1, -(-len(values) // _BLOCK))
        self._values = np.full(blocks * _BLOCK, neutral, dtype=values.dtype)
        self._values[: len(values)] = values
        self._from_block_start = self._running_extremes(range(1, _BLOCK), -1)
        self._to_block_end = self._running_extremes(range(_BLOCK - 2, -1, -1), 1)
        self._runs = self._build_tables(self._from_block_start[_BLOCK - 1 :: _BLOCK])
        self._blocks = blocks

    def find(self, low: Int64Array, high: Int64Array) -> _Numbers:
        """Return the extreme of each range ``[low, high)``, shape ``(m,)``.

        >>> runs = RangeExtremes(np.array([3.0, np.nan, 7.0]), np.fmax, np.float64(np.nan))
        >>> runs.find(np.array([0, 0, 1, 2]), np.array([2, 3, 2, 2])).tolist()
        [3.0, 7.0, nan, nan]
        """
        result = np.full(len(low), self._neutral, dtype=self._values.dtype)
        first, last = low >> _BITS, (high - 1) >> _BITS
        wide = np.flatnonzero(first < last)
        result[wide] = self._better(self._to_block_end[low[wide]], self._from_block_start[high[wide] - 1])
        self._add_between(result, wide, first + 1, last)
        self._add_within(result, np.flatnonzero((first == last) & (low < high)), low, high)
        return result

    def _add_between(self, result: _Numbers, wide: npt.NDArray[np.intp], first: Int64Array, last: Int64Array) -> None:
        chosen = wide[first[wide] < last[wide]]
        first, last = first[chosen], last[chosen]
        # frexp gives the number of binary digits: the level is the longest run that fits.
        level = np.frexp((last - first).astype(np.float64))[1].astype(np.int64) - 1
        row = level * self._blocks
        runs = self._better(self._runs[row + first], self._runs[row + last - (1 << level)])
        result[chosen] = self._better(result[chosen], runs)

    def _add_within(self, result: _Numbers, rows: npt.NDArray[np.intp], low: Int64Array, high: Int64Array) -> None:
        for step in range(_BLOCK):
            rows = rows[low[rows] + step < high[rows]]
            if not len(rows):
                return
            result[rows] = self._better(result[rows], self._values[low[rows] + step])

    def _running_extremes(self, positions: range, back: int) -> _Numbers:
        """Return the running extremes of all blocks, in the given order of positions in a block.

        Args:
            back: offset of the position before, in that order.
        """
        extremes = self._values.copy()
        for position in positions:
            here, before = extremes[position::_BLOCK], extremes[position + back :: _BLOCK]
            self._better(here, before, out=here)
        return extremes

    def _build_tables(self, blocks: _Numbers) -> _Numbers:
        """Return the extremes of runs of 1, 2, 4, .. blocks that start at each block, concatenated."""
        tables = [blocks]
        length = 1
        while 2 * length <= len(blocks):
            longer = tables[-1].copy()
            self._better(longer[:-length], tables[-1][length:], out=longer[:-length])
            tables.append(longer)
            length *= 2
        return np.concatenate(tables)


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Ranges ``[low, high)`` of queries, sorted by query and position."""

    query: Int64Array
    low: Int64Array
    high: Int64Array

    def __len__(self) -> int:
        return len(self.query)

    @classmethod
    def empty(cls) -> Ranges:
        """Return no ranges."""
        neutral = np.empty(0, dtype=np.int64)
        return cls(query=neutral, low=neutral, high=neutral)

    @classmethod
    def merge(cls, parts: Sequence[Ranges]) -> Ranges:
        """Return disjoint ranges of several parts, sorted; adjacent ranges become one."""
        query, low, high = (
            np.concatenate([getattr(part, name) for part in (cls.empty(), *parts)]) for name in ("query", "low", "high")
        )
        order = np.lexsort((low, query))
        query, low, high = query[order], low[order], high[order]
        begins = np.ones(len(order), dtype=np.bool_)
        begins[1:] = (query[1:] != query[:-1]) | (low[1:] != high[:-1])
        starts = np.flatnonzero(begins)
        ends = np.append(starts[1:], len(order))[: len(starts)] - 1
        return cls(query=query[starts], low=low[starts], high=high[ends])


class LimitFilter:
    """Finds the elements that are greater than the limit of a query.

    Args:
        values: the elements, int64, shape ``(n,)``.
    """

    def __init__(self, values: Int64Array) -> None:
        self._most = RangeExtremes(values, np.maximum, EVER)
        self._largest, self._smallest = [values], [values]
        while len(self._largest[-1]) > 1:
            self._largest.append(_halve(self._largest[-1], np.maximum, EVER))
            self._smallest.append(_halve(self._smallest[-1], np.minimum, NEVER))

    def find_excluded(
        self, low: Int64Array, high: Int64Array, limit: Int64Array, most: int | None = None
    ) -> Ranges | None:
        """Return the parts of ranges ``[low, high)`` that are greater than their limits; None: more than ``most``.

        >>> LimitFilter(np.array([1, 9, 9, 1])).find_excluded(np.array([0, 2]), np.array([4, 4]), np.array([5, 9]))
        Ranges(query=array([0]), low=array([1]), high=array([3]))
        """
        # Most queries exclude nothing, which one look-up each shows.
        affected = np.flatnonzero(self._most.find(low, high) > limit)
        length = (high - low)[affected]
        start = np.frexp(length.astype(np.float64))[1].astype(np.int64) - 1
        query = node = np.empty(0, dtype=np.int64)
        excluded: list[Ranges] = []
        for level in range(int(start.max(initial=-1)), -1, -1):
            new = affected[start == level]
            # A range is shorter than two nodes of its level, so it overlaps at most three of them.
            query = np.concatenate([query, query, np.tile(new, 3)])
            node = np.concatenate([2 * node, 2 * node + 1, *((low[new] >> level) + i for i in range(3))])
            begin, end = node << level, (node + 1) << level
            # Nodes beyond the end do not exist; the next condition closes them, because they begin after the range.
            place = np.minimum(node, len(self._largest[level]) - 1)
            # Nodes with an excluded element inside their range; all others are finished.
            open_ = (begin < high[query]) & (end > low[query]) & (self._largest[level][place] > limit[query])
            complete = open_ & (begin >= low[query]) & (end <= high[query])
            complete &= self._smallest[level][place] > limit[query]
            excluded.append(Ranges(query=query[complete], low=begin[complete], high=end[complete]))
            query, node = query[open_ & ~complete], node[open_ & ~complete]
            if most is not None and len(query) + sum(map(len, excluded)) > most:
                return None
        return Ranges.merge(excluded)


def split_ranges(low: Int64Array, high: Int64Array, excluded: Ranges) -> Ranges:
    """Return the remaining parts of ranges ``[low, high)``, one range per query: at least one part each, maybe empty.

    Args:
        excluded: the excluded parts; a part may begin before its range, and ends within it.

    >>> excluded = Ranges(query=np.array([1, 1]), low=np.array([2, 5]), high=np.array([3, 6]))
    >>> parts = split_ranges(np.array([0, 0]), np.array([9, 6]), excluded)
    >>> list(zip(parts.query.tolist(), parts.low.tolist(), parts.high.tolist()))
    [(0, 0, 9), (1, 0, 2), (1, 3, 5), (1, 6, 6)]
    """
    inside = excluded.high > low[excluded.query]
    query, begin, end = excluded.query[inside], excluded.low[inside], excluded.high[inside]
    counts = np.bincount(query, minlength=len(low))
    offset = np.cumsum(counts + 1) - counts - 1
    rank = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
    # A range with k excluded parts has k + 1 remaining parts: from each end of a gap to the start of the next gap.
    lows, highs = np.empty((2, len(low) + len(query)), dtype=np.int64)
    lows[offset], highs[offset + counts] = low, high
    highs[offset[query] + rank] = np.maximum(begin, low[query])
    lows[offset[query] + rank + 1] = end
    return Ranges(query=np.repeat(np.arange(len(low)), counts + 1), low=lows, high=highs)


def _halve(values: Int64Array, better: np.ufunc, neutral: np.int64) -> Int64Array:
    even = values if len(values) % 2 == 0 else np.append(values, neutral)
    return np.asarray(better(even[::2], even[1::2]), dtype=np.int64)


def first_at_least(values: Int64Array, low: Int64Array, high: Int64Array, target: Int64Array) -> Int64Array:
    """Return for each query the first position in ``[low, high)`` whose value is at least ``target``, or ``high``.

    Args:
        values: sorted within each query's segment, not over all segments.
        low, high, target: segment and value of each query, shape ``(n,)``; a segment may be empty.

    >>> values = np.array([1, 5, 9, 2, 2])
    >>> first_at_least(values, np.array([0, 0, 3, 3]), np.array([3, 3, 5, 3]), np.array([5, 10, 2, 2])).tolist()
    [1, 3, 3, 3]
    """
    position, length = low, high - low
    for bits in range(int(length.max(initial=0)).bit_length(), 0, -1):
        # Steps of decreasing powers of two: a query needs one number as its state, not the two of a bisection.
        step = 1 << (bits - 1)
        probe = position + (step - 1)
        # Clip instead of checking bounds: a probe outside its segment does not move the query anyway.
        inside = probe < high
        position = position + step * (inside & (values.take(probe, mode="clip") < target))
    return position
