"""What a single number of the metrics hides, as plain JSON values: curves, and how much each feature matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.spec import Task
from skewless.infra.runtimes.port import Matrix, Scores, Vector
from skewless.training.trainers.port import TrainedModel
from skewless.validation.evaluation.evaluation import calibration_table

Curve = dict[str, Any]

_POINTS = 200
_BINS = 40
Measure = Callable[[Scores], float | None]
"""The gate's metric of scores of the rows that were given."""
ROWS = 2_000


def curves(labels: Vector, scores: Scores, weights: Vector, *, task: Task) -> Curve:
    """Return the curves of scores against labels; those that do not exist on these rows are left out.

    - binary: ``roc``, ``precision_recall``, ``calibration``, and ``scores``, a histogram per label;
    - regression: ``calibration`` (mean prediction against mean label), ``residuals`` and ``scores``;
    - multiclass: ``confusion``, weights by label (rows) and likeliest class (columns);
    - ranking: ``scores``.

    Args:
        labels: ``(n,)`` float64.
        scores: ``(n,)`` or ``(n, k)`` float64.
        weights: ``(n,)`` float64.
        task: what was predicted.

    >>> curves(np.array([0.0, 1.0]), np.array([0.2, 0.9]), np.ones(2), task="binary")["roc"]
    {'false_positive': [0.0, 0.0, 1.0], 'true_positive': [0.0, 1.0, 1.0]}
    """
    if task == "multiclass":
        return {"confusion": _confusion(labels, scores, weights)}
    if task == "ranking":
        return {"scores": {"all": histogram(scores)}}
    found: Curve = {"calibration": calibration_table(labels, scores, weights)}
    if task == "regression":
        return found | {"scores": {"all": histogram(scores)}, "residuals": histogram(labels - scores)}
    span = (0.0, 1.0)
    found["scores"] = {str(label): histogram(scores[labels == label], span) for label in (0, 1)}
    return found | _thresholds(labels, scores, weights)


def histogram(values: Vector, span: tuple[float, float] | None = None) -> Curve:
    """Return ``edges`` and ``counts``, one less, of the finite values in bins of equal width.

    >>> histogram(np.array([0.1, 0.96, 0.99]), (0.0, 1.0))["counts"][-3:]
    [0, 1, 1]
    """
    finite = values[np.isfinite(values)]
    counts, edges = np.histogram(finite, bins=_BINS, range=span)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _thresholds(labels: Vector, scores: Vector, weights: Vector) -> Curve:
    """Return the curves over every threshold, thinned to a few points."""
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], labels[order] == 1.0
    hits, misses = np.cumsum(weights[order] * positive), np.cumsum(weights[order] * ~positive)
    if not (hits[-1] > 0 and misses[-1] > 0):
        return {}
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    hits, misses = hits[ends], misses[ends]
    roc = {"false_positive": np.r_[0.0, misses / misses[-1]], "true_positive": np.r_[0.0, hits / hits[-1]]}
    called = hits + misses > 0
    precision = hits[called] / (hits + misses)[called]
    recall = {"recall": hits[called] / hits[-1], "precision": precision, "threshold": ranked[ends][called]}
    return {"roc": _thinned(roc), "precision_recall": _thinned(recall)}


def _thinned(curve: dict[str, Vector]) -> dict[str, list[float]]:
    points = len(next(iter(curve.values())))
    keep = np.unique(np.linspace(0, points - 1, min(points, _POINTS)).round().astype(np.intp))
    return {name: values[keep].tolist() for name, values in curve.items()}


def _confusion(labels: Vector, scores: Matrix, weights: Vector) -> list[list[float]]:
    classes = scores.shape[1]
    cell = labels.astype(np.int64) * classes + scores.argmax(axis=1)
    table = np.bincount(cell, weights=weights, minlength=classes * classes).reshape(classes, classes)
    rows: list[list[float]] = table.astype(np.float64).tolist()
    return rows


def importance(model: TrainedModel, matrix: Matrix, metric: str, measure: Measure, seed: int) -> dict[str, Any]:
    """Return per kind of importance a number per feature, in the order of the columns.

    ``gain`` is the sum over a feature's splits, ``splits`` their number. ``permutation`` is how much worse the
    metric gets on rows that the model never saw once the feature's values change places between rows (Breiman,
    2001): 0 or less is a feature that does not help. It is left out where the metric does not exist.

    Args:
        model: names its features in the order of the columns.
        matrix: ``(n, n_features)`` float64, of test rows.
        metric: whose loss counts.
        measure: the metric of scores of these rows.
        seed: of the places.
    """
    found: dict[str, Any] = {"gain": dict(model.importance)}
    if model.splits:
        found["splits"] = dict(model.splits)
    permuted = _permutation(model, matrix, measure, seed)
    if permuted is None:
        return found
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    return found | {"permutation": {name: sign * value for name, value in permuted.items()}, "metric": metric}


def _permutation(model: TrainedModel, matrix: Matrix, measure: Measure, seed: int) -> Mapping[str, float] | None:
    """Return by how much the metric falls without each feature; None where it does not exist."""
    whole = measure(model.score(matrix))
    if whole is None:
        return None
    rng = np.random.default_rng(seed)
    lost: dict[str, float] = {}
    for index, name in enumerate(model.importance):
        changed = matrix.copy()
        changed[:, index] = rng.permutation(changed[:, index])
        without = measure(model.score(changed))
        if without is None:
            return None
        lost[name] = whole - without
    return lost
