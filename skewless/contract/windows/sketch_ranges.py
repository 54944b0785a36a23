"""Find the smallest distinct hashes in ranges of an array of hashes, many ranges at once.

Short ranges are sorted directly. For long ranges, the array is divided into blocks, and the smallest hashes of runs of
1, 2, 4, .. blocks are stored. A hash may be seen twice, so two overlapping runs cover all blocks inside a range::

    blocks  |------|------|------|------|------|
    range       [-----------------------------)
    edges       |--|                    |-----|
    runs           |-------------|
                          |-------------|

So a range takes at most the hashes of two blocks and two sketches, however many events its key has.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.sketch import NO_HASH, Hashes

_LEAST_BLOCK = 64
_LEAST_WIDTH = 8
_ELEMENTS = 1 << 21  # elements of a matrix that is sorted at once
_Rows = npt.NDArray[np.intp]


class RangeSketches:
    """The sketches of ranges of one column of hashes.

    Args:
        hashes: shape ``(n,)``; ``NO_HASH`` for null.
        k: number of hashes in a sketch.
    """

    def __init__(self, hashes: Hashes, k: int) -> None:
        self._k = k
        # At least k, so that the sketch of a block has k hashes.
        self._block = max(_LEAST_BLOCK, k)
        # `take` needs an element, also for empty ranges.
        self._hashes = hashes if len(hashes) else np.array([NO_HASH])
        self._runs: list[Hashes] = []

    def select_smallest(self, low: Int64Array, high: Int64Array) -> tuple[Int64Array, Hashes]:
        """Return the k smallest distinct hashes of each range ``[low, high)``, as (range, hash), sorted.

        >>> sketches = RangeSketches(np.array([7, 3, 7, 5], dtype=np.uint64), 2)
        >>> group, hashes = sketches.select_smallest(np.array([0, 2, 2]), np.array([4, 4, 2]))
        >>> list(zip(group.tolist(), hashes.tolist()))
        [(0, 3), (0, 5), (1, 5), (1, 7)]
        """
        groups, parts = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.uint64)]
        for rows, matrix in self._matrices(low, high):
            smallest, row = _find_smallest(matrix, self._k)
            groups.append(rows[row])
            parts.append(smallest)
        group, hashes = np.concatenate(groups), np.concatenate(parts)
        order = np.argsort(group, kind="stable")
        return group[order], hashes[order]

    def _matrices(self, low: Int64Array, high: Int64Array) -> Iterator[tuple[_Rows, Hashes]]:
        """Yield ranges, and a matrix with a row for each of them that contains the smallest hashes of the range."""
        length = high - low
        long = length > 4 * self._block
        # Round lengths up to powers of two, so that ranges of similar length share a matrix.
        width = np.where(length > 0, np.maximum(_LEAST_WIDTH, 1 << _bits(length - 1)), 0)
        for each in np.unique(width[~long & (width > 0)]).tolist():
            for rows in _slices(np.flatnonzero(~long & (width == each)), each):
                yield rows, self._pad_rows(low[rows], high[rows], each)
        first, last = -(-low // self._block), high // self._block
        level = np.where(long, _bits(last - first) - 1, -1)
        for each in np.unique(level[long]).tolist():
            for rows in _slices(np.flatnonzero(level == each), 2 * (self._block + self._k)):
                runs, begin, end = self._level(each), first[rows], last[rows]
                edges = (
                    self._pad_rows(low[rows], begin * self._block, self._block),
                    self._pad_rows(end * self._block, high[rows], self._block),
                )
                yield rows, np.concatenate([*edges, runs[begin], runs[end - (1 << each)]], axis=1)

    def _pad_rows(self, low: Int64Array, high: Int64Array, width: int) -> Hashes:
        """Return ranges of at most ``width`` hashes as rows, padded with ``NO_HASH``."""
        positions = low[:, None] + np.arange(width)
        rows = self._hashes.take(positions, mode="clip")
        rows[positions >= high[:, None]] = NO_HASH
        return rows

    def _level(self, level: int) -> Hashes:
        """Return the sketches of runs of ``2^level`` blocks that start at each block, shape ``(runs, k)``."""
        while len(self._runs) <= level:
            self._runs.append(self._double_runs() if self._runs else self._sketch_blocks())
        return self._runs[level]

    def _sketch_blocks(self) -> Hashes:
        blocks = len(self._hashes) // self._block
        return self._reduce(self._hashes[: blocks * self._block].reshape(blocks, self._block).copy())

    def _double_runs(self) -> Hashes:
        runs, step = self._runs[-1], 1 << (len(self._runs) - 1)
        return self._reduce(np.concatenate([runs[:-step], runs[step:]], axis=1))

    def _reduce(self, matrix: Hashes) -> Hashes:
        """Return the k smallest distinct hashes of each row, padded with ``NO_HASH``."""
        matrix.sort(axis=1)
        matrix[:, 1:][matrix[:, 1:] == matrix[:, :-1]] = NO_HASH
        # Again, because the repeats have become NO_HASH, which is the largest.
        matrix.sort(axis=1)
        return matrix[:, : self._k].copy()


def _find_smallest(matrix: Hashes, k: int) -> tuple[Hashes, _Rows]:
    """Return the k smallest distinct hashes of each row, and the row of each; sorts the matrix in place."""
    matrix.sort(axis=1)
    new: BoolArray = matrix != NO_HASH
    new[:, 1:] &= matrix[:, 1:] != matrix[:, :-1]
    if matrix.shape[1] > k:
        new &= np.cumsum(new, axis=1, dtype=np.int32) <= k
    return matrix[new], np.nonzero(new)[0]


def _slices(rows: _Rows, width: int) -> Iterator[_Rows]:
    size = max(1, _ELEMENTS // width)
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def _bits(numbers: Int64Array) -> Int64Array:
    """Return the number of binary digits of numbers; 0 for 0."""
    return np.frexp(np.maximum(numbers, 0).astype(np.float64))[1].astype(np.int64)
