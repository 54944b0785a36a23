"""Ranking metrics: normalised discounted cumulative gain (Jarvelin and Kekalainen, 2002)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skewless.infra.runtimes.port import Vector
from skewless.validation.evaluation.metrics import Metrics

Groups = NDArray[np.int64]
_TOP = 5


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
