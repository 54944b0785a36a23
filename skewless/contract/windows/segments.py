"""Searching many sorted pieces of one array at once."""

from __future__ import annotations

from skewless.contract.status import Int64Array


def first_at_least(values: Int64Array, low: Int64Array, high: Int64Array, wanted: Int64Array) -> Int64Array:
    """Return for each query the first place in ``[low, high)`` whose value is at least the wanted one, or ``high``.

    Args:
        values: sorted within each query's piece, not over all.
        low, high, wanted: of each query, shape ``(n,)``; a piece may be empty.

    >>> import numpy as np
    >>> values = np.array([1, 5, 9, 2, 2])
    >>> first_at_least(values, np.array([0, 0, 3, 3]), np.array([3, 3, 5, 3]), np.array([5, 10, 2, 2])).tolist()
    [1, 3, 3, 3]
    """
    place, length = low, high - low
    for bits in range(int(length.max(initial=0)).bit_length(), 0, -1):
        # Steps of falling powers of two: each query keeps one number, not two.
        step = 1 << (bits - 1)
        probe = place + (step - 1)
        inside = probe < high
        place = place + step * (inside & (values.take(probe, mode="clip") < wanted))
    return place
