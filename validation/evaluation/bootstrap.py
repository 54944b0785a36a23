"""How much better one score vector is than another on the same rows, with its paired bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.spec import Task
from skewless.infra.runtimes.port import Matrix, Scores, Vector
from skewless.validation.evaluation.ranking import Groups
from skewless.validation.evaluation.resampled import Scored, Weighted, weighted_metric

RESAMPLES = 1_000
_CELLS = 4_000_000  # weights that are held at once
_FEWEST = 0.5


@dataclass(frozen=True, kw_only=True)
class Gain:
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
class Pair:
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

    def only(self, chosen: np.typing.NDArray[np.bool_]) -> Pair:
        """Return some of the rows."""
        return Pair(
            labels=self.labels[chosen],
            candidate=self.candidate[chosen],
            champion=self.champion[chosen],
            weights=None if self.weights is None else self.weights[chosen],
            task=self.task,
            groups=None if self.groups is None else self.groups[chosen],
        )


def paired_gain(
    pair: Pair, metric: str, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Gain:
    """Return the gain with its percentile interval (Efron and Tibshirani, 1993, chapter 13).

    A resample draws as many rows as there are, with replacement, the same ones for both: so what moves both
    scores alike does not widen the interval. It is a weighting of the rows by how often each was drawn.

    >>> labels = np.array([0.0, 1.0] * 50)
    >>> found = paired_gain(Pair(labels=labels, candidate=labels, champion=1 - labels), "auc")
    >>> found.gain, found.low, found.high
    (1.0, 1.0, 1.0)
    """
    point, drawn = _gains(pair, metric, resamples, seed)
    ends = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist() if drawn.size else None
    return _gain(pair, metric, point, ends, confidence)


def normal_gain(
    pair: Pair, metric: str, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Gain:
    """Return the gain with the interval of its bootstrap standard error.

    For a confidence so high, of one slice among many, that percentiles of the resamples end before it.
    """
    point, drawn = _gains(pair, metric, resamples, seed)
    gain = float(point[0] - point[1])
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * float(drawn.std(ddof=1)) if drawn.size > 1 else None
    ends = None if reach is None or math.isnan(gain) else [gain - reach, gain + reach]
    return _gain(pair, metric, point, ends, confidence)


def _gains(pair: Pair, metric: str, resamples: int, seed: int) -> tuple[Vector, Vector]:
    """Return the signed metrics of candidate and champion, and the gain of each resample that has both."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    sides = [_side(pair, scores, metric) for scores in (pair.candidate, pair.champion)]
    weight = np.ones_like(pair.labels) if pair.weights is None else pair.weights
    point = sign * np.array([side(weight[None])[0] for side in sides])
    found = [sides[0](counts * weight) - sides[1](counts * weight) for counts in _draws(pair, resamples, seed)]
    drawn = sign * np.concatenate(found)
    drawn = drawn[~np.isnan(drawn)]
    return point, drawn if drawn.size >= resamples * _FEWEST else drawn[:0]


def _side(pair: Pair, scores: Scores, metric: str) -> Weighted:
    return weighted_metric(metric, Scored(labels=pair.labels, scores=scores, task=pair.task, groups=pair.groups))


def _draws(pair: Pair, resamples: int, seed: int) -> Iterator[Matrix]:
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


def _gain(pair: Pair, metric: str, point: Vector, ends: list[float] | None, confidence: float) -> Gain:
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    candidate, champion = (None if np.isnan(value) else sign * float(value) for value in point)
    low, high = ends or (None, None)
    return Gain(
        metric=metric,
        rows=int(pair.labels.size),
        candidate=candidate,
        champion=champion,
        gain=None if candidate is None or champion is None else float(point[0] - point[1]),
        low=low,
        high=high,
        confidence=confidence,
    )
