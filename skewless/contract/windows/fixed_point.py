"""Fixed-point arithmetic: exact sums that do not depend on the order of the values (SEMANTICS 3.3).

A sum is stored in words of 32 bits, each in an int64 that has room for carries::

    S1 = hi * 2^32 + lo                    2 words, |S1| < 2^94
    S2 = hi * 2^64 + mid * 2^32 + lo       3 words,  S2  < 2^124
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skewless.contract.status import BoolArray, Int64Array

Floats = npt.NDArray[np.float64]

SUM_LIMIT = 2**62
SQUARE_LIMIT = 2**46

_LOW = np.int64(0xFFFFFFFF)
_HALF_BITS = 23
_HALF = np.int64((1 << _HALF_BITS) - 1)
_EXACT = 2**53
_FEW = 32  # numbers up to which integers of Python are faster than the calls of numpy


def quantise(values: npt.NDArray[np.generic], scale: int, limit: int) -> tuple[Int64Array, BoolArray]:
    """Return ``round_half_even(x * 10^scale)`` as int64, and where the limit is reached (the number is then 0).

    Floats are multiplied as float64 and integers as integers; NaN, which is null, gives 0 and is in range.

    >>> quantise(np.array([0.25, -0.0, np.nan, 1e300]), 1, SUM_LIMIT)
    (array([2, 0, 0, 0]), array([False, False, False,  True]))
    >>> quantise(np.array([2**53 + 1]), 0, SUM_LIMIT)[0].tolist() == [2**53 + 1]
    True
    """
    if values.dtype.kind in "iub":
        numbers = values.astype(np.int64)
        # Compared before the product, which could overflow an int64.
        greatest = (limit - 1) // 10**scale
        beyond = np.asarray((numbers > greatest) | (numbers < -greatest), dtype=np.bool_)
        return np.where(beyond, 0, numbers) * np.int64(10**scale), beyond
    # rint rounds half to even; a product that overflows becomes infinite, which is beyond any limit.
    with np.errstate(over="ignore"):
        scaled = np.rint(values.astype(np.float64) * float(10**scale))
    missing = np.isnan(scaled)
    beyond = np.asarray((np.abs(scaled) >= float(limit)) & ~missing, dtype=np.bool_)
    return np.where(missing | beyond, 0.0, scaled).astype(np.int64), beyond


def sum_words(fixed: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return integers as (lo, hi): the words of the sum of one number.

    >>> sum_words(np.array([-1]))
    (array([4294967295]), array([-1]))
    """
    return fixed & _LOW, fixed >> 32


def square_words(fixed: Int64Array) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return the squares of integers below 2^46 as (lo, mid, hi).

    >>> square_words(np.array([-(2**45)]))
    (array([0]), array([0]), array([67108864]))
    """
    size = np.abs(fixed)
    small, large = size & _HALF, size >> _HALF_BITS
    # size^2 = large^2 * 2^46 + 2 * small * large * 2^23 + small^2, each product below 2^46
    # Split into halves of 23 bits: no product of halves exceeds 46 bits, so none overflows an int64.
    cross, top = small * large, large * large
    low = small * small + ((cross & 0xFF) << 24)
    middle = (cross >> 8) + ((top & 0x3FFFF) << 14)
    middle += low >> 32
    return low & _LOW, middle & _LOW, (top >> 18) + (middle >> 32)


def carry_words(words: Int64Array) -> None:
    """Carry in place: words, shape ``(2 or 3, n)``, least significant first, become less than 2^32, except the last."""
    for i in range(len(words) - 1):
        words[i + 1] += words[i] >> 32
        words[i] &= _LOW


def to_integers(words: Int64Array) -> list[int]:
    """Return the numbers in words, shape ``(2 or 3, n)``, as Python integers.

    >>> to_integers(np.array([[1], [2]]))
    [8589934593]
    """
    total = [0] * words.shape[1]
    for word in words[::-1].tolist():
        total = [(high << 32) + low for high, low in zip(total, word, strict=True)]
    return total


def sums_and_means(words: Int64Array, scale: int) -> tuple[Floats, Floats]:
    """Return ``S1 / 10^scale`` and ``S1 / (n * 10^scale)``, each rounded once to float64; NaN where n is 0.

    Args:
        words: n, then S1 as (lo, hi), carried or not, shape ``(3, m)``.

    >>> [each.tolist() for each in sums_and_means(np.array([[4, 0], [1, 0], [0, 0]]), 0)]
    [[1.0, nan], [0.25, nan]]
    """
    if words.shape[1] <= _FEW:
        sums, means = _divide_integers(words, scale)
        return sums, means
    n, low, high = words
    unit = float(10**scale)
    numbers = np.where(n, high * 4294967296.0 + low, np.nan)
    sums, means = numbers / unit, numbers / (n * unit)
    # If both sides are exact in float64, the float64 division rounds only once.
    small = np.abs(words) < np.array([[_EXACT // 10**scale], [2**52], [2**20]])
    if b"\0" in small.tobytes():  # `all` takes ten times as long for few numbers
        large = np.flatnonzero(~small.all(axis=0))
        sums[large], means[large] = _divide_integers(words[:, large], scale)
    return sums, means


def _divide_integers(words: Int64Array, scale: int) -> Floats:
    """Return ``sums_and_means``, ``(2, m)``: Python divides integers of any size, and rounds the quotient once."""
    unit, sums, means = 10**scale, [], []
    for n, low, high in zip(*words.tolist(), strict=True):
        total = (high << 32) + low
        sums.append(total / unit if n else np.nan)
        means.append(total / (unit * n) if n else np.nan)
    return np.array([sums, means], dtype=np.float64)


def variance(n: Int64Array, s1: Int64Array, s2: Int64Array, scale: int) -> Floats:
    """Return the sample variance ``(n*S2 - S1^2) / (n(n-1) * 10^(2*scale))``, rounded once; n is at least 2.

    >>> variance(np.array([2]), np.array([[3], [0]]), np.array([[5], [0], [0]]), 0)
    array([0.5])
    """
    # Python integers: n*S2 - S1^2 is beyond any machine number, and in floats the difference would cancel.
    unit = 10 ** (2 * scale)
    return np.array(
        [
            (count * square - total * total) / (count * (count - 1) * unit)
            for count, total, square in zip(n.tolist(), to_integers(s1), to_integers(s2), strict=True)
        ],
        dtype=np.float64,
    )
