"""Confidence intervals of metrics for large samples; rows of one unit may be correlated."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.infra.models.runtimes.port import Scores, Vector
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


def effective_size(weights: Vector) -> float:
    """Return how many equally weighted rows are worth these (Kish, 1965).

    >>> effective_size(np.array([1.0, 1.0, 1.0])), effective_size(np.array([1.0, 1.0, 20.0]))
    (3.0, 1.2039800995024876)
    """
    return float(weights.sum() ** 2 / (weights**2).sum()) if weights.size else 0.0


class Interval(NamedTuple):
    """A two-sided 95 % interval."""

    low: float
    high: float


def mean_interval(values: Vector, units: Units, weights: Vector | None = None) -> Interval | None:
    """Return the interval of a mean by the central limit theorem; None with fewer than two units.

    Args:
        values: ``(n,)`` float64.
        units: the unit of each row.
        weights: ``(n,)`` of a weighted mean, above 0; None: equal.

    >>> low, high = mean_interval(np.array([1.0, 3.0]), np.arange(2, dtype=np.uint64))
    >>> round(low, 2), round(high, 2)
    (0.04, 3.96)
    """
    if values.size < _MIN_UNITS:
        return None
    weights = np.ones(values.size) if weights is None else weights
    total = float(weights.sum())
    mean = float((weights * values).sum()) / total
    error = standard_error(weights * (values - mean) / total, units)
    return None if error is None else _symmetric_interval(mean, error)


def auc_interval(labels: Vector, scores: Vector, units: Units, weights: Vector | None = None) -> Interval | None:
    """Return the interval of the area under the ROC curve; None with fewer than two rows of a class, or units.

    The variance is that of Obuchowski (1997), in which rows of one unit, positive or negative, may be correlated. If
    each row is a unit, it is nearly that of DeLong, DeLong and Clarke-Pearson (1988). Both are computed by ranks (Sun
    and Xu, 2014).

    Args:
        labels: ``(n,)`` float64, 0 or 1.
        scores: ``(n,)`` float64.
        units: the unit of each row.
        weights: ``(n,)``, above 0; None: equal.
    """
    is_positive = labels == 1.0
    positive, negative = scores[is_positive], scores[~is_positive]
    if min(positive.size, negative.size) < _MIN_UNITS:
        return None
    weights = np.ones(scores.size) if weights is None else weights
    of_positive, of_negative = weights[is_positive], weights[~is_positive]
    above = _placements(positive, negative, of_negative)
    below = 1.0 - _placements(negative, positive, of_positive)
    area = float((of_positive * above).sum()) / float(of_positive.sum())
    influence = np.empty(scores.size)
    influence[is_positive] = of_positive * (above - area) / of_positive.sum()
    influence[~is_positive] = of_negative * (below - area) / of_negative.sum()
    error = standard_error(influence, units)
    if error is None:
        return None
    low, high = _symmetric_interval(area, error)
    return Interval(max(low, 0.0), min(high, 1.0))


def metric_interval(
    metric: str, labels: Vector, scores: Scores, units: Units, weights: Vector | None = None
) -> Interval | None:
    """Return the interval of a metric of an evaluation; None if it has no formula.

    Args:
        metric: ``auc``, or a mean over rows: ``log_loss``, ``brier``, ``accuracy``, ``mae``, ``rmse``.
        labels: ``(n,)`` float64.
        scores: ``(n,)`` float64, or ``(n, k)`` of k classes.
        units: the unit of each row.
        weights: ``(n,)``, above 0; None: equal.
    """
    if metric == "auc":
        return auc_interval(labels, scores, units, weights) if scores.ndim == 1 else None
    values = row_values(metric, labels, scores)
    interval = None if values is None else mean_interval(values, units, weights)
    if interval is None or metric != "rmse":
        return interval
    # The root grows with its argument, so the ends for the mean square give those for its root.
    return Interval(math.sqrt(max(interval.low, 0.0)), math.sqrt(interval.high))


def _symmetric_interval(middle: float, error: float) -> Interval:
    return Interval(middle - _Z * error, middle + _Z * error)


def _placements(scores: Vector, others: Vector, weights: Vector) -> Vector:
    """Return for each score the weighted share of lower scores among others; equal scores count one half."""
    order = np.argsort(others, kind="stable")
    ordered, below = others[order], np.append(0.0, np.cumsum(weights[order]))
    counts = (
        below[np.searchsorted(ordered, scores, side="left")] + below[np.searchsorted(ordered, scores, side="right")]
    )
    return np.asarray(counts / (2 * below[-1]), dtype=np.float64)
