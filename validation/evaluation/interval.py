"""Confidence intervals of metrics for large samples; rows of one unit may be correlated."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.infra.runtimes.port import Scores, Vector
from skewless.validation.evaluation.metrics import row_values

Units = npt.NDArray[np.uint64]
"""Shape ``(n,)``: rows with equal numbers are of one unit."""

_MIN_UNITS = 2
_Z = 1.959963984540054  # quantile for 95 %


def unit_sums(values: Vector, units: Units) -> Vector:
    """Return the sum of the values of each unit, shape ``(n_units,)``.

    >>> unit_sums(np.array([1.0, 2.0, 4.0]), np.array([9, 7, 9], dtype=np.uint64)).tolist()
    [2.0, 5.0]
    """
    return np.asarray(np.bincount(np.unique(units, return_inverse=True)[1], weights=values), dtype=np.float64)


def standard_error(influence: Vector, units: Units) -> float | None:
    """Return the standard error of an estimate from the influence of each row; None with fewer than two units.

    It is cluster-robust (Liang and Zeger, 1986): units are independent, rows of one unit may be correlated.

    Args:
        influence: ``(n,)``, sums up to 0; for a mean, the deviations from it divided by n.

    >>> single, paired = np.arange(4, dtype=np.uint64), np.array([1, 1, 2, 2], dtype=np.uint64)
    >>> rows = (np.array([1.0, 1.0, 3.0, 3.0]) - 2.0) / 4
    >>> round(standard_error(rows, single), 3), standard_error(rows, paired)
    (0.577, 1.0)
    """
    sums = unit_sums(influence, units)
    if sums.size < _MIN_UNITS:
        return None
    # The factor corrects for few units, as n - 1 does in a sample variance.
    return math.sqrt(sums.size / (sums.size - 1) * float((sums**2).sum()))


class Interval(NamedTuple):
    """A two-sided 95 % interval."""

    low: float
    high: float


def mean_interval(values: Vector, units: Units) -> Interval | None:
    """Return the interval of a mean by the central limit theorem; None with fewer than two units.

    Args:
        values: ``(n,)`` float64.
        units: the unit of each row.

    >>> low, high = mean_interval(np.array([1.0, 3.0]), np.arange(2, dtype=np.uint64))
    >>> round(low, 2), round(high, 2)
    (0.04, 3.96)
    """
    if values.size < _MIN_UNITS:
        return None
    mean = float(values.mean())
    error = standard_error((values - mean) / values.size, units)
    return None if error is None else _symmetric_interval(mean, error)


def auc_interval(labels: Vector, scores: Vector, units: Units) -> Interval | None:
    """Return the interval of the area under the ROC curve; None with fewer than two rows of a class, or units.

    The variance is that of Obuchowski (1997), in which rows of one unit, positive or negative, may be correlated. If
    each row is a unit, it is nearly that of DeLong, DeLong and Clarke-Pearson (1988). Both are computed by ranks (Sun
    and Xu, 2014).

    Args:
        labels: ``(n,)`` float64, 0 or 1.
        scores: ``(n,)`` float64.
        units: the unit of each row.
    """
    positive, negative = scores[labels == 1.0], scores[labels != 1.0]
    if min(positive.size, negative.size) < _MIN_UNITS:
        return None
    above = _placements(positive, negative)
    below = 1.0 - _placements(negative, positive)
    area = float(above.mean())
    influence = np.empty(scores.size)
    influence[labels == 1.0] = (above - area) / positive.size
    influence[labels != 1.0] = (below - area) / negative.size
    error = standard_error(influence, units)
    if error is None:
        return None
    low, high = _symmetric_interval(area, error)
    return Interval(max(low, 0.0), min(high, 1.0))


def metric_interval(metric: str, labels: Vector, scores: Scores, units: Units) -> Interval | None:
    """Return the interval of a metric of an evaluation without weights; None if it has no formula.

    Args:
        metric: ``auc``, or a mean over rows: ``log_loss``, ``brier``, ``accuracy``, ``mae``, ``rmse``.
        labels: ``(n,)`` float64.
        scores: ``(n,)`` float64, or ``(n, k)`` of k classes.
        units: the unit of each row.
    """
    if metric == "auc":
        return auc_interval(labels, scores, units) if scores.ndim == 1 else None
    values = row_values(metric, labels, scores)
    interval = None if values is None else mean_interval(values, units)
    if interval is None or metric != "rmse":
        return interval
    # The root grows with its argument, so the ends for the mean square give those for its root.
    return Interval(math.sqrt(max(interval.low, 0.0)), math.sqrt(interval.high))


def _symmetric_interval(middle: float, error: float) -> Interval:
    return Interval(middle - _Z * error, middle + _Z * error)


def _placements(scores: Vector, others: Vector) -> Vector:
    """Return for each score the share of lower scores among others; equal scores count one half."""
    ordered = np.sort(others)
    counts = np.searchsorted(ordered, scores, side="left") + np.searchsorted(ordered, scores, side="right")
    return np.asarray(counts / (2 * others.size), dtype=np.float64)
