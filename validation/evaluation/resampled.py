"""Metrics of one score vector under many weightings of its rows at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from skewless.contract.spec import Task
from skewless.infra.runtimes.port import Matrix, Scores, Vector
from skewless.validation.evaluation.evaluation import calibration_bins, evaluate
from skewless.validation.evaluation.metrics import row_values
from skewless.validation.evaluation.ranking import Groups, ndcg_shares

Weighted = Callable[[Matrix], Vector]
"""Weights ``(n_samples, n_rows)`` to the metric of each sample ``(n_samples,)``; NaN where it does not exist."""

_HALF = 0.5
_PLACES = {"ndcg": None, "ndcg_at_5": 5}


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
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


def weighted_metric(metric: str, rows: Scored) -> Weighted:
    """Return the function from weights to a metric: what ``evaluate`` gives for each row of weights, in one go.

    >>> auc = weighted_metric("auc", Scored(labels=np.array([0.0, 1.0, 1.0]), scores=np.array([0.5, 0.5, 0.7])))
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


def _auc_macro(weights: Matrix, rows: Scored) -> Vector:
    single = np.array(
        [
            _auc(weights, _Order.of(rows.scores[:, column]), rows.labels == column)
            for column in range(rows.scores.shape[1])
        ]
    )
    exist = ~np.isnan(single)
    return _divided(np.where(exist, single, 0.0).sum(axis=0), exist.sum(axis=0).astype(np.float64))


def _calibration_error(weights: Matrix, rows: Scored) -> Vector:
    bins = calibration_bins(rows.scores)
    inside = (bins[:, None] == np.unique(bins)).astype(np.float64)
    gaps = np.abs((weights * (rows.scores - rows.labels)) @ inside)
    return _divided(gaps.sum(axis=1), weights.sum(axis=1))


def _ndcg(rows: Scored, at: int | None) -> Weighted:
    query = np.zeros(rows.labels.size, dtype=np.int64) if rows.groups is None else rows.groups
    share, counts, group = ndcg_shares(rows.labels, rows.scores, query, at)
    per_row = (counts / np.bincount(group))[group]
    return partial(_ratio, above=share[group] * per_row, below=per_row)


def _share(rows: Scored, metric: str) -> Weighted:
    called, positive = (rows.scores >= _HALF).astype(np.float64), (rows.labels == 1.0).astype(np.float64)
    return partial(_ratio, above=called * positive, below=called if metric == "precision" else positive)


def _ratio(weights: Matrix, above: Vector, below: Vector, *, root: bool = False) -> Vector:
    found = _divided(weights @ above, weights @ below)
    return np.sqrt(found) if root else found


def _one_by_one(weights: Matrix, metric: str, rows: Scored) -> Vector:
    def one(each: Vector) -> float:
        if not each.sum() > 0:
            return np.nan
        found = evaluate(rows.labels, rows.scores, each, task=rows.task, groups=rows.groups)[metric]
        return np.nan if found is None else found

    return np.array([one(each) for each in weights])


def _divided(above: Vector, below: Vector) -> Vector:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
