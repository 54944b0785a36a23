"""Metrics of scores: the AUC, and metrics that are means over rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from skewless.infra.runtimes.port import Scores, Vector

Metrics = dict[str, float | None]
"""Metric -> its value; None if it is undefined for the rows."""
_EPSILON = 1e-15
_Values = Callable[[Vector, Scores], Vector]


def auc(labels: Vector, scores: Vector, weights: Vector | None = None) -> float | None:
    """Return the probability that a positive scores above a negative, ties count one half; None for one class.

    >>> auc(np.array([0.0, 1.0, 1.0]), np.array([0.5, 0.5, 0.7]))
    0.75
    """
    weight = np.ones_like(labels) if weights is None else weights
    _, group = np.unique(scores, return_inverse=True)
    positive = np.bincount(group, weights=weight * (labels == 1.0))
    negative = np.bincount(group, weights=weight * (labels != 1.0))
    pairs = positive.sum() * negative.sum()
    if pairs == 0:
        return None
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / pairs)


def row_values(metric: str, labels: Vector, scores: Scores) -> Vector | None:
    """Return the values whose mean is a metric (for ``rmse`` its square); None for metrics that are not such a mean.

    Args:
        metric: name of a metric.
        labels: ``(n,)`` float64.
        scores: ``(n,)`` float64, or ``(n, k)`` of k classes.

    >>> row_values("mae", np.array([1.0, 0.0]), np.array([0.5, 0.0])).tolist()
    [0.5, 0.0]
    """
    values = (_SCORE_METRICS if scores.ndim == 1 else _CLASS_METRICS).get(metric)
    return None if values is None else values(labels, scores)


def mean_metric(metric: str, labels: Vector, scores: Scores, weights: Vector) -> float:
    """Return a metric that is a mean over rows, weighted."""
    values = row_values(metric, labels, scores)
    assert values is not None, metric  # noqa: S101 - callers use only such metrics
    return float(np.average(values, weights=weights))


def _log_losses(labels: Vector, scores: Scores) -> Vector:
    # One row with a score of exactly 0 or 1 must not make the loss of all rows infinite.
    clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
    return np.asarray(-np.where(labels == 1.0, np.log(clipped), np.log1p(-clipped)))


def _squares(labels: Vector, scores: Scores) -> Vector:
    return np.asarray((scores - labels) ** 2)


def _distances(labels: Vector, scores: Scores) -> Vector:
    return np.asarray(np.abs(scores - labels))


def _class_log_losses(labels: Vector, scores: Scores) -> Vector:
    probabilities = np.take_along_axis(scores, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    return np.asarray(-np.log(np.clip(probabilities, _EPSILON, 1.0)))


def _hits(labels: Vector, scores: Scores) -> Vector:
    return np.asarray(scores.argmax(axis=1) == labels, dtype=np.float64)


_SCORE_METRICS: Mapping[str, _Values] = {
    "log_loss": _log_losses,
    "brier": _squares,
    "rmse": _squares,
    "mae": _distances,
}
_CLASS_METRICS: Mapping[str, _Values] = {"log_loss": _class_log_losses, "accuracy": _hits}
