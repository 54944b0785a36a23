"""The curves of an evaluation: what a single number of the metrics hides, as plain JSON values."""

from __future__ import annotations

from typing import Any

import numpy as np

from skewless.contract.spec import Task
from skewless.infra.runtimes.port import Matrix, Scores, Vector
from skewless.validation.evaluation.evaluation import calibration_table

Curve = dict[str, Any]

_POINTS = 200
_BINS = 40


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
