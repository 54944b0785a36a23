"""Count distinct values by their k smallest hashes (SEMANTICS 3.3): exact below k values, an estimate from k on.

The k smallest distinct 64-bit hashes of two sets can be merged in any order. The estimate is the unbiased form of
that of Bar-Yossef et al., "Counting distinct elements in a data stream" (2002).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import filled_numbers
from skewless.contract.status import Int64Array
from skewless.contract.windows.fixed_point import Floats

Hashes = npt.NDArray[np.uint64]

NO_HASH = np.uint64(2**64 - 1)


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
