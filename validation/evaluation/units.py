"""What varies by itself: rows of one unit, an entity say, are not independent of each other."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from skewless.infra.runtimes.port import Vector

Units = npt.NDArray[np.uint64]
"""``(n,)``: rows with equal numbers are of one unit."""

_FEWEST = 2


def unit_sums(values: Vector, units: Units) -> Vector:
    """Return the sum of the values of each unit, shape ``(n_units,)``.

    >>> unit_sums(np.array([1.0, 2.0, 4.0]), np.array([9, 7, 9], dtype=np.uint64)).tolist()
    [2.0, 5.0]
    """
    return np.asarray(np.bincount(np.unique(units, return_inverse=True)[1], weights=values), dtype=np.float64)


def standard_error(influence: Vector, units: Units) -> float | None:
    """Return the standard error of an estimate from what each row adds to it; None of fewer than two units.

    It is the cluster-robust one (Liang and Zeger, 1986): units vary, rows of one unit may do so together.

    Args:
        influence: ``(n,)``, summing up to 0: of a mean the distances from it, each by n.

    >>> apart, twice = np.arange(4, dtype=np.uint64), np.array([1, 1, 2, 2], dtype=np.uint64)
    >>> rows = (np.array([1.0, 1.0, 3.0, 3.0]) - 2.0) / 4
    >>> round(standard_error(rows, apart), 3), standard_error(rows, twice)
    (0.577, 1.0)
    """
    sums = unit_sums(influence, units)
    if sums.size < _FEWEST:
        return None
    return math.sqrt(sums.size / (sums.size - 1) * float((sums**2).sum()))
