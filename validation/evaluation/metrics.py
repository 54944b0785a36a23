"""Metrics of scores: what an evaluation finds, the values that a mean over rows rests on, and the AUC."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from skewless.infra.runtimes.port import Scores, Vector

Metrics = dict[str, float | None]
"""Metric -> its value; None where it does not exist on the rows."""
_EPSILON = 1e-15
_Values = Callable[[Vector, Scores], Vector]


def auc(labels: Vector, scores: Vector, weights: Vector | None = None) -> float | None:
    """Return the chance that a positive scores above a negative, ties counting one half; None for one class.

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
    """Return the values whose mean is a metric, of ``rmse`` its square; None for metrics that are no mean over rows.

    Args:
        metric: name of a metric.
        labels: ``(n,)`` float64.
        scores: ``(n,)`` float64, or ``(n, k)`` of k classes.

    >>> row_values("mae", np.array([1.0, 0.0]), np.array([0.5, 0.0])).tolist()
    [0.5, 0.0]
    """
    values = (_OF_SCORES if scores.ndim == 1 else _OF_CLASSES).get(metric)
    return None if values is None else values(labels, scores)


def mean_metric(metric: str, labels: Vector, scores: Scores, weights: Vector) -> float:
    """Return the weighted mean of the rows' values of a metric that is one."""
    values = row_values(metric, labels, scores)
    assert values is not None, metric  # noqa: S101 - of those below
    return float(np.average(values, weights=weights))


def _log_losses(labels: Vector, scores: Scores) -> Vector:
    clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
    return np.asarray(-np.where(labels == 1.0, np.log(clipped), np.log1p(-clipped)))


def _squares(labels: Vector, scores: Scores) -> Vector:
    return np.asarray((scores - labels) ** 2)


def _distances(labels: Vector, scores: Scores) -> Vector:
    return np.asarray(np.abs(scores - labels))


def _class_log_losses(labels: Vector, scores: Scores) -> Vector:
    own = np.take_along_axis(scores, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    return np.asarray(-np.log(np.clip(own, _EPSILON, 1.0)))


def _hits(labels: Vector, scores: Scores) -> Vector:
    return np.asarray(scores.argmax(axis=1) == labels, dtype=np.float64)


_OF_SCORES: Mapping[str, _Values] = {"log_loss": _log_losses, "brier": _squares, "rmse": _squares, "mae": _distances}
_OF_CLASSES: Mapping[str, _Values] = {"log_loss": _class_log_losses, "accuracy": _hits}
