"""How much better one score vector is than another on the same rows, with its paired bootstrap interval."""

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
from skewless.validation.evaluation.metrics import row_values
from skewless.validation.evaluation.ranking import Groups, ndcg_shares

RESAMPLES = 1_000
_CELLS = 4_000_000  # weights that are held at once
_FEWEST = 0.5
_HALF = 0.5
_PLACES = {"ndcg": None, "ndcg_at_5": 5}

Weighted = Callable[[Matrix], Vector]
"""Weights ``(n_samples, n_rows)`` to the metric of each sample ``(n_samples,)``; NaN where it does not exist."""


@dataclass(frozen=True, kw_only=True)
class MetricGain:
    """What the candidate wins over the champion on the same rows: above 0 is better, whatever the metric.

    Args:
        rows: how many.
        candidate, champion: the metric of each; None where it does not exist.
        gain: the difference, its sign turned where lower is better.
        low, high: ends of the interval of the gain; None where too few resamples have the metric.
        confidence: of the interval, between 0 and 1.
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
    """Two score vectors of the same rows.

    Args:
        labels: ``(n,)`` float64.
        candidate, champion: ``(n,)`` or ``(n, k)`` float64 scores.
        weights: ``(n,)`` float64 sample weights, all 1 if None.
        task: what was predicted.
        groups: ``(n,)`` int64, which rows are of one query; resamples draw queries then, not rows.
    """

    labels: Vector
    candidate: Scores
    champion: Scores
    weights: Vector | None = None
    task: Task = "binary"
    groups: Groups | None = None

    def only(self, chosen: np.typing.NDArray[np.bool_]) -> ScorePair:
        """Return some of the rows."""
        return ScorePair(
            labels=self.labels[chosen],
            candidate=self.candidate[chosen],
            champion=self.champion[chosen],
            weights=None if self.weights is None else self.weights[chosen],
            task=self.task,
            groups=None if self.groups is None else self.groups[chosen],
        )


def paired_gain(
    pair: ScorePair, metric: str, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> MetricGain:
    """Return the gain with its percentile interval (Efron and Tibshirani, 1993, chapter 13).

    A resample draws as many rows as there are, with replacement, the same ones for both: so what moves both
    scores alike does not widen the interval. It is a weighting of the rows by how often each was drawn.

    >>> labels = np.array([0.0, 1.0] * 50)
    >>> found = paired_gain(ScorePair(labels=labels, candidate=labels, champion=1 - labels), "auc")
    >>> found.gain, found.low, found.high
    (1.0, 1.0, 1.0)
    """
    point, drawn = _gains(pair, metric, resamples, seed)
    ends = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist() if drawn.size else None
    return _gain(pair, metric, point, ends, confidence)


def normal_gain(
    pair: ScorePair, metric: str, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> MetricGain:
    """Return the gain with the interval of its bootstrap standard error.

    For a confidence so high, of one slice among many, that percentiles of the resamples end before it.
    """
    point, drawn = _gains(pair, metric, resamples, seed)
    gain = float(point[0] - point[1])
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * float(drawn.std(ddof=1)) if drawn.size > 1 else None
    ends = None if reach is None or math.isnan(gain) else [gain - reach, gain + reach]
    return _gain(pair, metric, point, ends, confidence)


def _gains(pair: ScorePair, metric: str, resamples: int, seed: int) -> tuple[Vector, Vector]:
    """Return the signed metrics of candidate and champion, and the gain of each resample that has both."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    sides = [_side(pair, scores, metric) for scores in (pair.candidate, pair.champion)]
    weight = np.ones_like(pair.labels) if pair.weights is None else pair.weights
    point = sign * np.array([side(weight[None])[0] for side in sides])
    found = [sides[0](counts * weight) - sides[1](counts * weight) for counts in _draws(pair, resamples, seed)]
    drawn = sign * np.concatenate(found)
    drawn = drawn[~np.isnan(drawn)]
    return point, drawn if drawn.size >= resamples * _FEWEST else drawn[:0]


def _side(pair: ScorePair, scores: Scores, metric: str) -> Weighted:
    return weighted_metric(metric, ScoredRows(labels=pair.labels, scores=scores, task=pair.task, groups=pair.groups))


def _draws(pair: ScorePair, resamples: int, seed: int) -> Iterator[Matrix]:
    """Yield how often each row was drawn, ``(some, n)``, until there are enough resamples."""
    rows = pair.labels.size
    unit = np.arange(rows) if pair.groups is None else np.unique(pair.groups, return_inverse=True)[1]
    units = int(unit.max()) + 1
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // rows)
    for first in range(0, resamples, step):
        some = min(step, resamples - first)
        picked = rng.integers(0, units, (some, units)) + np.arange(some)[:, None] * units
        counts = np.bincount(picked.ravel(), minlength=some * units).reshape(some, units)
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
    """Scores of rows whose labels are known.

    Args:
        labels: ``(n,)`` float64.
        scores: ``(n,)`` or ``(n, k)`` float64.
        task: what was predicted.
        groups: ``(n,)`` int64, which rows are of one query, for ranking.
    """

    labels: Vector
    scores: Scores
    task: Task = "binary"
    groups: Groups | None = None


def weighted_metric(metric: str, rows: ScoredRows) -> Weighted:
    """Return the function from weights to a metric: what ``evaluate`` gives for each row of weights, in one go.

    >>> auc = weighted_metric("auc", ScoredRows(labels=np.array([0.0, 1.0, 1.0]), scores=np.array([0.5, 0.5, 0.7])))
    >>> auc(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])).tolist()
    [0.75, 0.5]
    """
    if metric == "auc":
        return partial(_auc, order=_Order.of(rows.scores), positive=rows.labels == 1.0)
    if metric in _PLACES:
        return _ndcg(rows, _PLACES[metric])
    if metric in {"precision", "recall"}:
        return _share(rows, metric)
    losses = row_values(metric, rows.labels, rows.scores)
    if losses is not None:
        return partial(_ratio, above=losses, below=np.ones_like(losses), root=metric == "rmse")
    whole = {"auc_macro": _auc_macro, "calibration_error": _calibration_error}.get(metric)
    return partial(_one_by_one, metric=metric, rows=rows) if whole is None else partial(whole, rows=rows)


@dataclass(frozen=True, eq=False)
class _Order:
    """Rows in rising order of their scores; ``starts`` are the first places of equal ones."""

    order: NDArray[np.intp]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, scores: Vector) -> _Order:
        order = np.argsort(scores, kind="stable")
        ranked = scores[order]
        return cls(order, np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]))


def _auc(weights: Matrix, order: _Order, positive: NDArray[np.bool_]) -> Vector:
    ranked, mask = weights[:, order.order], positive[order.order]
    above = np.add.reduceat(ranked * mask, order.starts, axis=1)
    below = np.add.reduceat(ranked * ~mask, order.starts, axis=1)
    won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    return _divided(won, above.sum(axis=1) * below.sum(axis=1))


def _auc_macro(weights: Matrix, rows: ScoredRows) -> Vector:
    single = np.array(
        [
            _auc(weights, _Order.of(rows.scores[:, column]), rows.labels == column)
            for column in range(rows.scores.shape[1])
        ]
    )
    exist = ~np.isnan(single)
    return _divided(np.where(exist, single, 0.0).sum(axis=0), exist.sum(axis=0).astype(np.float64))


def _calibration_error(weights: Matrix, rows: ScoredRows) -> Vector:
    bins = calibration_bins(rows.scores)
    inside = (bins[:, None] == np.unique(bins)).astype(np.float64)
    gaps = np.abs((weights * (rows.scores - rows.labels)) @ inside)
    return _divided(gaps.sum(axis=1), weights.sum(axis=1))


def _ndcg(rows: ScoredRows, at: int | None) -> Weighted:
    query = np.zeros(rows.labels.size, dtype=np.int64) if rows.groups is None else rows.groups
    share, counts, group = ndcg_shares(rows.labels, rows.scores, query, at)
    per_row = (counts / np.bincount(group))[group]
    return partial(_ratio, above=share[group] * per_row, below=per_row)


def _share(rows: ScoredRows, metric: str) -> Weighted:
    called, positive = (rows.scores >= _HALF).astype(np.float64), (rows.labels == 1.0).astype(np.float64)
    return partial(_ratio, above=called * positive, below=called if metric == "precision" else positive)


def _ratio(weights: Matrix, above: Vector, below: Vector, *, root: bool = False) -> Vector:
    found = _divided(weights @ above, weights @ below)
    return np.sqrt(found) if root else found


def _one_by_one(weights: Matrix, metric: str, rows: ScoredRows) -> Vector:
    def one(each: Vector) -> float:
        if not each.sum() > 0:
            return np.nan
        found = evaluate(rows.labels, rows.scores, each, task=rows.task, groups=rows.groups)[metric]
        return np.nan if found is None else found

    return np.array([one(each) for each in weights])


def _divided(above: Vector, below: Vector) -> Vector:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
