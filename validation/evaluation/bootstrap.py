"""Computes the gain of one score vector over another on the same rows, with a paired bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.spec import Task
from skewless.infra.models.runtimes.port import Matrix, Scores, Vector
from skewless.validation.evaluation.metrics import Groups, ScoredRows, weighted_metric

RESAMPLES = 1_000
_CELLS = 4_000_000  # resample weights in memory at a time
_MIN_DEFINED_SHARE = 0.5


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
        columns = ("labels", "candidate", "champion", "weights", "groups")
        return replace(self, **{name: values[mask] for name in columns if (values := getattr(self, name)) is not None})


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
    rows = [
        ScoredRows(labels=pair.labels, scores=scores, groups=pair.groups) for scores in (pair.candidate, pair.champion)
    ]
    metrics = [weighted_metric(metric, each) for each in rows]
    weight = np.ones_like(pair.labels) if pair.weights is None else pair.weights
    point = sign * np.array([side(weight[None])[0] for side in metrics])
    differences = [
        metrics[0](counts * weight) - metrics[1](counts * weight) for counts in _draw_counts(pair, resamples, seed)
    ]
    resampled = sign * np.concatenate(differences)
    resampled = resampled[~np.isnan(resampled)]
    # If the metric is undefined in most resamples, the others are a biased part of them, so there is no interval.
    return point, resampled if resampled.size >= resamples * _MIN_DEFINED_SHARE else resampled[:0]


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
