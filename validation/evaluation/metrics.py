"""Metrics of scores, each for many weightings of the same rows at once.

Ranking is measured by normalised discounted cumulative gain (Jarvelin and Kekalainen, 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from skewless.infra.models.runtimes.port import Matrix, Scores, Vector

Metrics = dict[str, float | None]
"""Metric -> its value; None if it is undefined for the rows."""
_EPSILON = 1e-15
_Values = Callable[[Vector, Scores], Vector]
Groups = NDArray[np.int64]
WeightedMetric = Callable[[Matrix], Vector]
"""Returns the metric of each sample, ``(n_samples,)``, from weights ``(n_samples, n_rows)``; NaN if undefined."""
BINS = 10
_HALF = 0.5
_ROUNDING = 1e-13  # of a sum, relative to its terms
_NDCG_PLACES = {"ndcg": None, "ndcg_at_5": 5}


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


def _log_losses(labels: Vector, scores: Scores) -> Vector:
    # One row with a score of exactly 0 or 1 must not make the loss of all rows infinite.
    clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
    return np.asarray(-np.where(labels == 1.0, np.log(clipped), np.log1p(-clipped)))


def _squares(labels: Vector, scores: Scores) -> Vector:
    return np.asarray((scores - labels) ** 2)


def _class_log_losses(labels: Vector, scores: Scores) -> Vector:
    probabilities = np.take_along_axis(scores, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    return np.asarray(-np.log(np.clip(probabilities, _EPSILON, 1.0)))


_SCORE_METRICS: Mapping[str, _Values] = {
    "log_loss": _log_losses,
    "brier": _squares,
    "rmse": _squares,
    "mae": lambda labels, scores: np.asarray(np.abs(scores - labels)),
}
_CLASS_METRICS: Mapping[str, _Values] = {
    "log_loss": _class_log_losses,
    "accuracy": lambda labels, scores: np.asarray(scores.argmax(axis=1) == labels, dtype=np.float64),
}


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


def calibration_bins(scores: Vector, bins: int = BINS) -> NDArray[np.intp]:
    """Return the bin of each score, bins of equal count; equal scores share a bin.

    >>> calibration_bins(np.array([0.1, 0.9, 0.2, 0.8]), bins=2).tolist()
    [0, 1, 0, 1]
    """
    # "higher" makes each edge a score of the data, so rows of equal scores are never split.
    inner = np.unique(np.quantile(scores, np.arange(1, bins) / bins, method="higher"))
    return np.searchsorted(inner, scores, side="right")


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredRows:
    """Labelled rows with scores.

    Args:
        labels: ``(n,)`` float64.
        scores: ``(n,)`` or ``(n, k)`` float64.
        groups: ``(n,)`` int64, query of each row, for ranking; None: all rows are one query.
    """

    labels: Vector
    scores: Scores
    groups: Groups | None = None


def metric_value(metric: str, rows: ScoredRows, weights: Vector) -> float | None:
    """Return a metric of rows with one weighting, ``(n,)``; None if it is undefined."""
    value = float(weighted_metric(metric, rows)(weights[None])[0])
    return None if np.isnan(value) else value


def auc(labels: Vector, scores: Vector) -> float | None:
    """Return the probability that a positive scores above a negative, ties count one half; None for one class.

    >>> auc(np.array([0.0, 1.0, 1.0]), np.array([0.5, 0.5, 0.7]))
    0.75
    """
    return metric_value("auc", ScoredRows(labels=labels, scores=scores), np.ones_like(labels))


def weighted_metric(metric: str, rows: ScoredRows) -> WeightedMetric:
    """Return the function that computes a metric for many rows of weights at once.

    >>> auc = weighted_metric("auc", ScoredRows(labels=np.array([0.0, 1.0, 1.0]), scores=np.array([0.5, 0.5, 0.7])))
    >>> auc(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])).tolist()
    [0.75, 0.5]
    """
    if metric == "auc":
        return partial(_auc, order=_Order.of(rows.scores), positive=rows.labels == 1.0)
    if metric in _NDCG_PLACES:
        return _ndcg(rows, _NDCG_PLACES[metric])
    losses = row_values(metric, rows.labels, rows.scores)
    if losses is not None:
        return partial(_ratio, above=losses, below=np.ones_like(losses), root=metric == "rmse")
    if metric in {"precision", "recall"}:
        return _share(rows, metric, _HALF)
    others = {"auc_macro": _auc_macro, "calibration_error": _calibration_error}
    return partial(others[metric], rows=rows) if metric in others else partial(_share_at_base_rate, rows, metric)


@dataclass(frozen=True, eq=False)
class _Order:
    """Rows in ascending order of their values; ``starts`` are the first places of equal values."""

    order: NDArray[np.intp]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, values: Vector | NDArray[np.intp]) -> _Order:
        order = np.argsort(values, kind="stable")
        ranked = values[order]
        return cls(order, np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]))


def _auc(weights: Matrix, order: _Order, positive: NDArray[np.bool_]) -> Vector:
    ranked, mask = weights[:, order.order], positive[order.order]
    # Rows of equal scores form one step: a pair of equal scores counts one half.
    above = np.add.reduceat(ranked * mask, order.starts, axis=1)
    below = np.add.reduceat(ranked * ~mask, order.starts, axis=1)
    won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    return _divide_or_nan(won, above.sum(axis=1) * below.sum(axis=1))


def _auc_macro(weights: Matrix, rows: ScoredRows) -> Vector:
    single = np.array(
        [
            _auc(weights, _Order.of(rows.scores[:, column]), rows.labels == column)
            for column in range(rows.scores.shape[1])
        ]
    )
    exist = ~np.isnan(single)
    return _divide_or_nan(np.where(exist, single, 0.0).sum(axis=0), exist.sum(axis=0).astype(np.float64))


def _calibration_error(weights: Matrix, rows: ScoredRows) -> Vector:
    # The bins of all rows for every resample, so that only the draws differ between resamples.
    bins = _Order.of(calibration_bins(rows.scores))
    differences = (weights * (rows.scores - rows.labels))[:, bins.order]
    gaps = np.abs(np.add.reduceat(differences, bins.starts, axis=1))
    # A sum that is nothing but rounding depends on the order of the rows.
    gaps[gaps < _ROUNDING * np.add.reduceat(np.abs(differences), bins.starts, axis=1)] = 0.0
    return _divide_or_nan(gaps.sum(axis=1), weights.sum(axis=1))


def _ndcg(rows: ScoredRows, at: int | None) -> WeightedMetric:
    query = np.zeros(rows.labels.size, dtype=np.int64) if rows.groups is None else rows.groups
    share, counts, group = ndcg_shares(rows.labels, rows.scores, query, at)
    # The weight of a query is the mean weight of its rows, so each row has its share of the query.
    per_row = (counts / np.bincount(group))[group]
    return partial(_ratio, above=share[group] * per_row, below=per_row)


def _share(rows: ScoredRows, metric: str, threshold: float) -> WeightedMetric:
    """Return precision or recall of the rows at or above a threshold."""
    predicted, positive = (rows.scores >= threshold).astype(np.float64), (rows.labels == 1.0).astype(np.float64)
    below = predicted if metric.startswith("precision") else positive
    return partial(_ratio, above=predicted * positive, below=below)


def _share_at_base_rate(rows: ScoredRows, metric: str, weights: Matrix) -> Vector:
    # Each weighting has its own base rate.
    bases = weighted_means(rows.labels, weights).tolist()
    each = zip(weights, bases, strict=True)
    return np.array([_share(rows, metric, base)(weight[None])[0] for weight, base in each])


def weighted_means(values: Vector, weights: Matrix) -> Vector:
    """Return the mean of the values, ``(n,)``, for each row of weights; NaN without weight."""
    return _ratio(weights, values, np.ones_like(values))


def _ratio(weights: Matrix, above: Vector, below: Vector, *, root: bool = False) -> Vector:
    # Not `@`: sums of BLAS depend on the number of cores.
    values = _divide_or_nan(*(np.einsum("ij,j->i", weights, part) for part in (above, below)))
    return np.sqrt(values) if root else values


def _divide_or_nan(above: Vector, below: Vector) -> Vector:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
