"""Checksums of vectors and scores, to distinguish an altered log row from a wrong prediction."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Int64Array

_Floats = npt.NDArray[np.float64]
_Words = npt.NDArray[np.uint64]

# The finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
_STEP, _FIRST, _SECOND = (np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def checksums(*columns: _Floats) -> Int64Array:
    """Return one 64-bit checksum per row of arrays of shape ``(n,)`` or ``(n, k)``.

    If two rows differ in one number, their checksums always differ; if they differ in several, except for one pair in
    2^64. All NaNs count as equal, because they mean a missing value.

    >>> checksums(np.array([[1.0], [1.0]]), np.array([0.5, -0.5])).tolist()
    [251861717727352478, 9020596573803996711]
    """
    words = _words(columns)
    words += _STEP * np.arange(1, words.shape[1] + 1, dtype=np.uint64)
    _mix(words)
    sums: Int64Array = words.sum(axis=1, dtype=np.uint64).view(np.int64)
    return sums


def checksums_v1(vectors: _Floats, scores: _Floats) -> Int64Array:
    """Return the ``checksum`` column of files in the first format: blake2b of each vector and its score."""
    rows = np.ascontiguousarray(_words([vectors, scores]))
    sums = [blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(sums), dtype="<i8").astype(np.int64)


def _words(columns: Any) -> _Words:  # noqa: ANN401 - arrays of one or two dimensions
    rows = np.column_stack(columns)
    rows[np.isnan(rows)] = np.nan
    return rows.view(np.uint64)


def _mix(words: _Words) -> None:
    """Mix the bits of each word in place; each step is invertible, so different words stay different."""
    words ^= words >> np.uint64(30)
    words *= _FIRST
    words ^= words >> np.uint64(27)
    words *= _SECOND
    words ^= words >> np.uint64(31)
