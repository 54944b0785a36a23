"""Count distinct values by their k smallest hashes (SEMANTICS 3.3): exact below k values, an estimate from k on.

The k smallest distinct 64-bit hashes of two sets can be merged in any order. The estimate is the unbiased form of
that of Bar-Yossef et al., "Counting distinct elements in a data stream" (2002).

The smallest hashes of many ranges of an array are found at once. Short ranges are sorted directly. For long ranges, the
array is divided into blocks, and the smallest hashes of runs of 1, 2, 4, .. blocks are stored. A hash may be seen
twice, so two overlapping runs cover all blocks inside a range::

    blocks  |------|------|------|------|------|
    range       [-----------------------------)
    edges       |--|                    |-----|
    runs           |-------------|
                          |-------------|

So a range takes at most the hashes of two blocks and two sketches, however many events its key has.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import filled_numbers
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.fixed_point import Floats

Hashes = npt.NDArray[np.uint64]

NO_HASH = np.uint64(2**64 - 1)
_LEAST_BLOCK = 64
_LEAST_WIDTH = 8
_ELEMENTS = 1 << 21  # elements of a matrix that is sorted at once
_Rows = npt.NDArray[np.intp]


def hash_numbers(numbers: npt.NDArray[Any]) -> Hashes:
    """Return a 64-bit hash of each number: of its int64, or of its float64 bits; -0.0 counts as 0.0.

    The mixing function is splitmix64 (Steele, Lea, Flood, 2014); no two numbers of one type share a hash.

    >>> hash_numbers(np.array([0.0, -0.0])).tolist()[0] == hash_numbers(np.array([-0.0])).tolist()[0]
    True
    """
    bits = (numbers.astype(np.float64) + 0.0).view(np.uint64) if numbers.dtype.kind == "f" else numbers.astype(np.int64)
    # The largest hash is reserved for NO_HASH.
    return np.minimum(mix_bits(bits.astype(np.uint64)), NO_HASH - np.uint64(1))


def mix_bits(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return splitmix64 of each word: a permutation of all 64-bit words that looks random."""
    # Unsigned arithmetic wraps around, as the function requires.
    mixed = bits + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def hash_texts(texts: pa.Array) -> Hashes:
    """Return a 64-bit hash of each text's bytes; meaningless for null. Each distinct text is hashed once."""
    words = texts.dictionary_encode()
    hashes = [0 if text is None else _hash(text) for text in words.dictionary.to_pylist()]
    table = np.array([*hashes, 0], dtype=np.uint64)
    positions = filled_numbers(words.indices, len(hashes))
    text_hashes: Hashes = table[positions]
    return text_hashes


def select_smallest(group: Int64Array, hashes: Hashes, k: int) -> tuple[Int64Array, Hashes]:
    """Return the k smallest distinct hashes of each group, as (group, hash), sorted.

    >>> group, hashes = select_smallest(np.array([1, 0, 1, 1]), np.array([5, 7, 5, 3], dtype=np.uint64), 2)
    >>> list(zip(group.tolist(), hashes.tolist()))
    [(0, 7), (1, 3), (1, 5)]
    """
    real = hashes != NO_HASH
    group, hashes = group[real], hashes[real]
    order = np.lexsort((hashes, group))
    group, hashes = group[order], hashes[order]
    new_group = np.diff(group, prepend=group[:1] - 1) != 0
    # Hashes are unsigned: np.diff wraps around, but only zero means an equal neighbour.
    first = new_group | (np.diff(hashes, prepend=hashes[:1]) != 0)
    group, hashes, new_group = group[first], hashes[first], new_group[first]
    begins = np.flatnonzero(new_group)
    rank = np.arange(len(group)) - np.repeat(begins, np.diff(np.append(begins, len(group))))
    return group[rank < k], hashes[rank < k]


def estimate_distinct(groups: int, group: Int64Array, hashes: Hashes, k: int) -> Floats:
    """Return the number of distinct values of each group, shape ``(groups,)``.

    Args:
        groups: number of groups.
        group, hashes: the result of ``select_smallest`` for the same k.

    >>> estimate_distinct(2, np.array([1, 1]), np.array([2, 2**63], dtype=np.uint64), 2).tolist()
    [0.0, 2.0]
    """
    counts = np.bincount(group, minlength=groups)
    result = counts.astype(np.float64)
    full = np.flatnonzero(counts == k)
    if full.size:
        last = np.cumsum(counts)[full] - 1
        # With k hashes the set may be larger: the k-th smallest hash, as a share of 2^64, gives the density of hashes.
        result[full] = (k - 1) / (hashes[last].astype(np.float64) / 2.0**64)
    return result


def _hash(text: str | bytes) -> int:
    raw = text.encode() if isinstance(text, str) else text
    # The largest hash is reserved for NO_HASH.
    return min(int.from_bytes(blake2b(raw, digest_size=8).digest(), "little"), 2**64 - 2)


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
