"""Metrics of scores: the AUC, metrics that are means over rows, and ranking metrics.

Ranking is measured by normalised discounted cumulative gain (Jarvelin and Kekalainen, 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from skewless.infra.runtimes.port import Scores, Vector

Metrics = dict[str, float | None]
"""Metric -> its value; None if it is undefined for the rows."""
_EPSILON = 1e-15
_Values = Callable[[Vector, Scores], Vector]
Groups = NDArray[np.int64]
_TOP = 5


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


def ranking_metrics(labels: Vector, scores: Vector, weights: Vector, groups: Groups) -> Metrics:
    """Return the metrics of a ranking model; for the arguments see ``ndcg``."""
    return {
        "ndcg": ndcg(labels, scores, groups, weights=weights),
        f"ndcg_at_{_TOP}": ndcg(labels, scores, groups, at=_TOP, weights=weights),
    }


def ndcg(
    labels: Vector, scores: Vector, groups: Groups, *, at: int | None = None, weights: Vector | None = None
) -> float | None:
    """Return the mean over groups of the gain in the order of the scores, divided by the gain in the best order.

    A row's gain is ``2 ** label - 1``, discounted by ``1 / log2(1 + place)``. Rows with equal scores share the mean
    gain of their places, so a constant score is as good as chance. A group's weight is the mean weight of its rows.

    Args:
        labels: ``(n,)`` float64, integers of 0 or more.
        scores: ``(n,)`` float64, the highest comes first.
        groups: ``(n,)`` int64, equal for rows of one query.
        at: number of places that count; None: all.
        weights: ``(n,)`` float64, all 1 if None.

    Returns:
        None if no group has a label above 0; other groups are ignored.

    >>> ndcg(np.array([1.0, 0.0]), np.array([0.2, 0.9]), np.array([0, 0])).__round__(4)
    0.6309
    """
    share, counts, group = ndcg_shares(labels, scores, groups, at)
    weight = np.ones_like(labels) if weights is None else weights
    mean = np.bincount(group, weights=weight) / np.bincount(group)
    if not mean[counts].sum() > 0:
        return None
    return float(np.average(share[counts], weights=mean[counts]))


def ndcg_shares(
    labels: Vector, scores: Vector, groups: Groups, at: int | None = None
) -> tuple[Vector, NDArray[np.bool_], NDArray[np.intp]]:
    """Return per group its share of the best gain and whether it counts, and the group index of each row.

    >>> ndcg_shares(np.array([1.0, 0.0]), np.array([0.9, 0.2]), np.array([7, 7]))[0].tolist()
    [1.0]
    """
    _, group = np.unique(groups, return_inverse=True)
    gains = np.exp2(labels) - 1.0
    best = _discounted_gain(gains, gains, group, at)
    counts = best > 0
    actual = _discounted_gain(gains, scores, group, at)
    share: Vector = np.divide(actual, best, out=np.zeros_like(best), where=counts)
    return share, counts, group


def _discounted_gain(gains: Vector, scores: Vector, group: NDArray[np.intp], at: int | None) -> Vector:
    """Return per group the discounted gain of its rows in descending order of the scores."""
    order = np.lexsort((-scores, group))
    group, gains, scores = group[order], gains[order], scores[order]
    sizes = np.bincount(group)
    place = np.arange(group.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    discount = np.where(place < (group.size if at is None else at), 1.0 / np.log2(place + 2.0), 0.0)
    # Ties share the mean gain of their places, because their order is arbitrary.
    starts = np.r_[True, (np.diff(group) != 0) | (np.diff(scores) != 0)]
    tie = np.cumsum(starts) - 1
    shared = np.bincount(tie, weights=gains) / np.bincount(tie)
    total: Vector = np.bincount(group, weights=shared[tie] * discount).astype(np.float64)
    return total
