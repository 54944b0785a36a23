"""Find the minimum or maximum of ranges of an array, many ranges at once (sparse tables over blocks).

The array is divided into blocks of 16. A range over several blocks consists of the rest of its first block, the start
of its last block, and the blocks between, which are two overlapping runs of a power of two blocks::

    blocks  |----|----|----|----|----|----|
    range      [----------------------)
    first      |--|         last |----|
    between       |---------|
                       |---------|

So a range takes four look-ups, whatever its length, and the tables about three times the memory of the array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Int64Array

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
