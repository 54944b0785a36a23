"""Computes the gain of one score vector over another on the same rows, with a paired bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.spec import Task
from skewless.infra.runtimes.port import Matrix, Scores, Vector
from skewless.validation.evaluation.evaluation import calibration_bins, evaluate
from skewless.validation.evaluation.metrics import Groups, ndcg_shares, row_values

RESAMPLES = 1_000
_CELLS = 4_000_000  # resample weights in memory at a time
_MIN_DEFINED_SHARE = 0.5
_HALF = 0.5
_NDCG_PLACES = {"ndcg": None, "ndcg_at_5": 5}

WeightedMetric = Callable[[Matrix], Vector]
"""Returns the metric of each sample, ``(n_samples,)``, from weights ``(n_samples, n_rows)``; NaN if undefined."""


@dataclass(frozen=True, kw_only=True)
class MetricGain:
    """The gain of the candidate over the champion on the same rows: above 0 the candidate is better.

    Args:
        rows: number of rows.
        candidate, champion: the metric of each; None if undefined.
        gain: the difference; its sign is inverted for metrics of which lower is better.
        low, high: ends of the gain's interval; None if the metric is undefined in too many resamples.
        confidence: confidence of the interval, between 0 and 1.
    """

    metric: str
    rows: int
    candidate: float | None
    champion: float | None
    gain: float | None
    low: float | None
    high: float | None
    confidence: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScorePair:
    """Two score vectors for the same rows.

    Args:
        labels: ``(n,)`` float64.
        candidate, champion: ``(n,)`` or ``(n, k)`` float64 scores.
        weights: ``(n,)`` float64 sample weights, all 1 if None.
        task: the task of the model.
        groups: ``(n,)`` int64, query of each row; then resamples draw queries instead of rows.
    """

    labels: Vector
    candidate: Scores
    champion: Scores
    weights: Vector | None = None
    task: Task = "binary"
    groups: Groups | None = None

    def only(self, mask: np.typing.NDArray[np.bool_]) -> ScorePair:
        """Return the rows of a mask."""
        return ScorePair(
            labels=self.labels[mask],
            candidate=self.candidate[mask],
            champion=self.champion[mask],
            weights=None if self.weights is None else self.weights[mask],
            task=self.task,
            groups=None if self.groups is None else self.groups[mask],
        )


def paired_gain(
    pair: ScorePair, metric: str, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> MetricGain:
    """Return the gain with its percentile interval (Efron and Tibshirani, 1993, chapter 13).

    A resample draws all rows with replacement, the same rows for both score vectors, so variation that affects both
    alike does not widen the interval. A resample is a weighting: the number of times each row was drawn.

    >>> labels = np.array([0.0, 1.0] * 50)
    >>> result = paired_gain(ScorePair(labels=labels, candidate=labels, champion=1 - labels), "auc")
    >>> result.gain, result.low, result.high
    (1.0, 1.0, 1.0)
    """
    point, gains = _gains(pair, metric, resamples, seed)
    ends = np.quantile(gains, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist() if gains.size else None
    return _gain(pair, metric, point, ends, confidence)


def normal_gain(
    pair: ScorePair, metric: str, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> MetricGain:
    """Return the gain with the interval of its bootstrap standard error.

    Use it for a confidence (as for one of many slices) that is too high for percentiles of the resamples.
    """
    point, gains = _gains(pair, metric, resamples, seed)
    gain = float(point[0] - point[1])
    radius = NormalDist().inv_cdf((1 + confidence) / 2) * float(gains.std(ddof=1)) if gains.size > 1 else None
    ends = None if radius is None or math.isnan(gain) else [gain - radius, gain + radius]
    return _gain(pair, metric, point, ends, confidence)


def _gains(pair: ScorePair, metric: str, resamples: int, seed: int) -> tuple[Vector, Vector]:
    """Return the signed metrics of candidate and champion, and the gain of each resample in which both are defined."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    metrics = [_metric_of(pair, scores, metric) for scores in (pair.candidate, pair.champion)]
    weight = np.ones_like(pair.labels) if pair.weights is None else pair.weights
    point = sign * np.array([side(weight[None])[0] for side in metrics])
    differences = [
        metrics[0](counts * weight) - metrics[1](counts * weight) for counts in _draw_counts(pair, resamples, seed)
    ]
    resampled = sign * np.concatenate(differences)
    resampled = resampled[~np.isnan(resampled)]
    # If the metric is undefined in most resamples, the others are a biased part of them, so there is no interval.
    return point, resampled if resampled.size >= resamples * _MIN_DEFINED_SHARE else resampled[:0]


def _metric_of(pair: ScorePair, scores: Scores, metric: str) -> WeightedMetric:
    return weighted_metric(metric, ScoredRows(labels=pair.labels, scores=scores, task=pair.task, groups=pair.groups))


def _draw_counts(pair: ScorePair, resamples: int, seed: int) -> Iterator[Matrix]:
    """Yield the draw counts of the rows, ``(n_samples, n)``, in chunks of resamples."""
    rows = pair.labels.size
    # Rows of one query are not independent, so complete queries are drawn.
    unit = np.arange(rows) if pair.groups is None else np.unique(pair.groups, return_inverse=True)[1]
    units = int(unit.max()) + 1
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // rows)
    for first in range(0, resamples, step):
        size = min(step, resamples - first)
        # Each resample's units get their own range of numbers, so one bincount counts the draws of all resamples.
        drawn = rng.integers(0, units, (size, units)) + np.arange(size)[:, None] * units
        counts = np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units)
        yield counts[:, unit].astype(np.float64)


def _gain(pair: ScorePair, metric: str, point: Vector, ends: list[float] | None, confidence: float) -> MetricGain:
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    candidate, champion = (None if np.isnan(value) else sign * float(value) for value in point)
    low, high = ends or (None, None)
    return MetricGain(
        metric=metric,
        rows=int(pair.labels.size),
        candidate=candidate,
        champion=champion,
        gain=None if candidate is None or champion is None else float(point[0] - point[1]),
        low=low,
        high=high,
        confidence=confidence,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredRows:
    """Labelled rows with scores.

    Args:
        labels: ``(n,)`` float64.
        scores: ``(n,)`` or ``(n, k)`` float64.
        task: the task of the model.
        groups: ``(n,)`` int64, query of each row, for ranking.
    """

    labels: Vector
    scores: Scores
    task: Task = "binary"
    groups: Groups | None = None


def weighted_metric(metric: str, rows: ScoredRows) -> WeightedMetric:
    """Return the function that computes a metric for many rows of weights at once, as ``evaluate`` does for one.

    >>> auc = weighted_metric("auc", ScoredRows(labels=np.array([0.0, 1.0, 1.0]), scores=np.array([0.5, 0.5, 0.7])))
    >>> auc(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])).tolist()
    [0.75, 0.5]
    """
    if metric == "auc":
        return partial(_auc, order=_Order.of(rows.scores), positive=rows.labels == 1.0)
    if metric in _NDCG_PLACES:
        return _ndcg(rows, _NDCG_PLACES[metric])
    if metric in {"precision", "recall"}:
        return _share(rows, metric)
    losses = row_values(metric, rows.labels, rows.scores)
    if losses is not None:
        return partial(_ratio, above=losses, below=np.ones_like(losses), root=metric == "rmse")
    vectorised = {"auc_macro": _auc_macro, "calibration_error": _calibration_error}.get(metric)
    return partial(_evaluate_each, metric=metric, rows=rows) if vectorised is None else partial(vectorised, rows=rows)


@dataclass(frozen=True, eq=False)
class _Order:
    """Rows in ascending order of their scores; ``starts`` are the first places of equal scores."""

    order: NDArray[np.intp]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, scores: Vector) -> _Order:
        order = np.argsort(scores, kind="stable")
        ranked = scores[order]
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
    bins = calibration_bins(rows.scores)
    inside = (bins[:, None] == np.unique(bins)).astype(np.float64)
    gaps = np.abs((weights * (rows.scores - rows.labels)) @ inside)
    return _divide_or_nan(gaps.sum(axis=1), weights.sum(axis=1))


def _ndcg(rows: ScoredRows, at: int | None) -> WeightedMetric:
    query = np.zeros(rows.labels.size, dtype=np.int64) if rows.groups is None else rows.groups
    share, counts, group = ndcg_shares(rows.labels, rows.scores, query, at)
    # The weight of a query is the mean weight of its rows, so each row has its share of the query.
    per_row = (counts / np.bincount(group))[group]
    return partial(_ratio, above=share[group] * per_row, below=per_row)


def _share(rows: ScoredRows, metric: str) -> WeightedMetric:
    predicted, positive = (rows.scores >= _HALF).astype(np.float64), (rows.labels == 1.0).astype(np.float64)
    return partial(_ratio, above=predicted * positive, below=predicted if metric == "precision" else positive)


def _ratio(weights: Matrix, above: Vector, below: Vector, *, root: bool = False) -> Vector:
    values = _divide_or_nan(weights @ above, weights @ below)
    return np.sqrt(values) if root else values


def _evaluate_each(weights: Matrix, metric: str, rows: ScoredRows) -> Vector:
    def evaluate_one(weight: Vector) -> float:
        if not weight.sum() > 0:
            return np.nan
        value = evaluate(rows.labels, rows.scores, weight, task=rows.task, groups=rows.groups)[metric]
        return np.nan if value is None else value

    return np.array([evaluate_one(weight) for weight in weights])


def _divide_or_nan(above: Vector, below: Vector) -> Vector:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
