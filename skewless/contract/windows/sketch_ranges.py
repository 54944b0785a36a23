"""The smallest distinct hashes in any range of an array of hashes, for many ranges at once.

Short ranges are sorted as they are. The array lies in blocks, and for runs of 1, 2, 4, .. blocks the smallest hashes
are kept; since a hash may be seen twice, two overlapping runs stand for all blocks inside a long range::

    blocks  |------|------|------|------|------|
    range       [-----------------------------)
    edges       |--|                    |-----|
    runs           |-------------|
                          |-------------|

So a range costs at most the hashes of two blocks and two sketches, however hot its key is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.sketch import NO_HASH, Hashes

_LEAST_BLOCK = 64
_LEAST_WIDTH = 8
_ELEMENTS = 1 << 21  # of a matrix that is sorted at a time
_Rows = npt.NDArray[np.intp]


class RangeSketches:
    """The sketches of ranges of one column of hashes.

    Args:
        hashes: shape ``(n,)``; ``NO_HASH`` for null.
        k: how many hashes a sketch holds.
    """

    def __init__(self, hashes: Hashes, k: int) -> None:
        self._k = k
        self._block = max(_LEAST_BLOCK, k)
        self._hashes = hashes if len(hashes) else np.array([NO_HASH])
        self._runs: list[Hashes] = []

    def smallest(self, low: Int64Array, high: Int64Array) -> tuple[Int64Array, Hashes]:
        """Return the k smallest distinct hashes of each range ``[low, high)``, as (range, hash) in growing order.

        >>> sketches = RangeSketches(np.array([7, 3, 7, 5], dtype=np.uint64), 2)
        >>> group, hashes = sketches.smallest(np.array([0, 2, 2]), np.array([4, 4, 2]))
        >>> list(zip(group.tolist(), hashes.tolist()))
        [(0, 3), (0, 5), (1, 5), (1, 7)]
        """
        groups, found = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.uint64)]
        for rows, matrix in self._matrices(low, high):
            kept, at = _firsts(matrix, self._k)
            groups.append(rows[at])
            found.append(kept)
        group, hashes = np.concatenate(groups), np.concatenate(found)
        order = np.argsort(group, kind="stable")
        return group[order], hashes[order]

    def _matrices(self, low: Int64Array, high: Int64Array) -> Iterator[tuple[_Rows, Hashes]]:
        """Yield ranges, and a matrix of which a row has all that can be among a range's smallest hashes."""
        length = high - low
        long = length > 4 * self._block
        width = np.where(length > 0, np.maximum(_LEAST_WIDTH, 1 << _bits(length - 1)), 0)
        for each in np.unique(width[~long & (width > 0)]).tolist():
            for rows in _slices(np.flatnonzero(~long & (width == each)), each):
                yield rows, self._cut(low[rows], high[rows], each)
        first, last = -(-low // self._block), high // self._block
        level = np.where(long, _bits(last - first) - 1, -1)
        for each in np.unique(level[long]).tolist():
            for rows in _slices(np.flatnonzero(level == each), 2 * (self._block + self._k)):
                runs, begin, end = self._level(each), first[rows], last[rows]
                edges = (
                    self._cut(low[rows], begin * self._block, self._block),
                    self._cut(end * self._block, high[rows], self._block),
                )
                yield rows, np.concatenate([*edges, runs[begin], runs[end - (1 << each)]], axis=1)

    def _cut(self, low: Int64Array, high: Int64Array, width: int) -> Hashes:
        """Return ranges of at most ``width`` hashes as rows, filled up with ``NO_HASH``."""
        places = low[:, None] + np.arange(width)
        found = self._hashes.take(places, mode="clip")
        found[places >= high[:, None]] = NO_HASH
        return found

    def _level(self, level: int) -> Hashes:
        """Return the sketches of runs of ``2^level`` blocks from each block on, shape ``(runs, k)``."""
        while len(self._runs) <= level:
            self._runs.append(self._longer() if self._runs else self._blocks())
        return self._runs[level]

    def _blocks(self) -> Hashes:
        whole = len(self._hashes) // self._block
        return self._packed(self._hashes[: whole * self._block].reshape(whole, self._block).copy())

    def _longer(self) -> Hashes:
        runs, step = self._runs[-1], 1 << (len(self._runs) - 1)
        return self._packed(np.concatenate([runs[:-step], runs[step:]], axis=1))

    def _packed(self, matrix: Hashes) -> Hashes:
        """Return the k smallest distinct hashes of each row, filled up with ``NO_HASH``."""
        matrix.sort(axis=1)
        matrix[:, 1:][matrix[:, 1:] == matrix[:, :-1]] = NO_HASH
        matrix.sort(axis=1)
        return matrix[:, : self._k].copy()


def _firsts(matrix: Hashes, k: int) -> tuple[Hashes, _Rows]:
    """Return the k smallest distinct hashes of each row, and the row of each; sorts the matrix."""
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
    """Return how many binary digits numbers have; 0 for 0."""
    return np.frexp(np.maximum(numbers, 0).astype(np.float64))[1].astype(np.int64)
