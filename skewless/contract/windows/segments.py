"""Binary search in many sorted segments of one array at once."""

from __future__ import annotations

from skewless.contract.status import Int64Array


def first_at_least(values: Int64Array, low: Int64Array, high: Int64Array, target: Int64Array) -> Int64Array:
    """Return for each query the first position in ``[low, high)`` whose value is at least ``target``, or ``high``.

    Args:
        values: sorted within each query's segment, not over all segments.
        low, high, target: segment and value of each query, shape ``(n,)``; a segment may be empty.

    >>> import numpy as np
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
