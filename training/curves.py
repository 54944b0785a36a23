"""Computes evaluation curves, feature importance and the profile of the training data, as plain JSON values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.spec import Task
from skewless.infra.models.runtimes.port import Matrix, Scores, Vector
from skewless.training.stored_matrix import AnyMatrix, StoredMatrix
from skewless.training.trainers.port import TrainedModel
from skewless.validation.evaluation.evaluation import calibration_table

Curve = dict[str, Any]

_POINTS = 200
_BINS = 40
Measure = Callable[[Scores], float | None]
"""Returns the gate's metric of scores of some rows; None if it is undefined."""
# Rows for the permutation importance, which scores all of them once for each feature.
ROWS = 2_000
_PROFILE_BINS = 20
_COUNTED_ROWS = 1_000_000


def compute_curves(labels: Vector, scores: Scores, weights: Vector, *, task: Task) -> Curve:
    """Return the curves of scores against labels; curves that are undefined for these rows are omitted.

    - binary: ``roc``, ``precision_recall``, ``calibration``, and ``scores``, a histogram per label;
    - regression: ``calibration`` (mean prediction against mean label), ``residuals`` and ``scores``;
    - multiclass: ``confusion``, weights by label (rows) and most likely class (columns);
    - ranking: ``scores``.

    Args:
        labels: ``(n,)`` float64.
        scores: ``(n,)`` or ``(n, k)`` float64.
        weights: ``(n,)`` float64.
        task: the task of the model.

    >>> compute_curves(np.array([0.0, 1.0]), np.array([0.2, 0.9]), np.ones(2), task="binary")["roc"]
    {'false_positive': [0.0, 0.0, 1.0], 'true_positive': [0.0, 1.0, 1.0]}
    """
    if task == "multiclass":
        return {"confusion": _confusion(labels, scores, weights)}
    if task == "ranking":
        return {"scores": {"all": histogram(scores)}}
    result: Curve = {"calibration": calibration_table(labels, scores, weights)}
    if task == "regression":
        return result | {"scores": {"all": histogram(scores)}, "residuals": histogram(labels - scores)}
    span = (0.0, 1.0)
    result["scores"] = {str(label): histogram(scores[labels == label], span) for label in (0, 1)}
    return result | _threshold_curves(labels, scores, weights)


def histogram(values: Vector, span: tuple[float, float] | None = None) -> Curve:
    """Return ``edges`` and ``counts`` (one fewer) of the finite values in bins of equal width.

    >>> histogram(np.array([0.1, 0.96, 0.99]), (0.0, 1.0))["counts"][-3:]
    [0, 1, 1]
    """
    finite = values[np.isfinite(values)]
    counts, edges = np.histogram(finite, bins=_BINS, range=span)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _threshold_curves(labels: Vector, scores: Vector, weights: Vector) -> Curve:
    """Return the ROC and precision-recall curves over all thresholds, reduced to some points."""
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], labels[order] == 1.0
    hits, misses = np.cumsum(weights[order] * positive), np.cumsum(weights[order] * ~positive)
    if not (hits[-1] > 0 and misses[-1] > 0):
        return {}
    # Rows with equal scores are on the same side of every threshold, so only the last of them is a point.
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    hits, misses = hits[ends], misses[ends]
    roc = {"false_positive": np.r_[0.0, misses / misses[-1]], "true_positive": np.r_[0.0, hits / hits[-1]]}
    # The first rows may have weight 0: then nothing is predicted positive yet, and precision is undefined.
    is_defined = hits + misses > 0
    precision = hits[is_defined] / (hits + misses)[is_defined]
    recall = {"recall": hits[is_defined] / hits[-1], "precision": precision, "threshold": ranked[ends][is_defined]}
    return {"roc": _reduce_points(roc), "precision_recall": _reduce_points(recall)}


def _reduce_points(curve: dict[str, Vector]) -> dict[str, list[float]]:
    points = len(next(iter(curve.values())))
    # linspace has both ends, so a reduced curve still begins and ends where the complete curve does.
    indices = np.unique(np.linspace(0, points - 1, min(points, _POINTS)).round().astype(np.intp))
    return {name: values[indices].tolist() for name, values in curve.items()}


def _confusion(labels: Vector, scores: Matrix, weights: Vector) -> list[list[float]]:
    classes = scores.shape[1]
    cell = labels.astype(np.int64) * classes + scores.argmax(axis=1)
    table = np.bincount(cell, weights=weights, minlength=classes * classes).reshape(classes, classes)
    rows: list[list[float]] = table.astype(np.float64).tolist()
    return rows


def compute_importance(model: TrainedModel, matrix: Matrix, metric: str, measure: Measure, seed: int) -> dict[str, Any]:
    """Return, by kind of importance, a number per feature, in the order of the columns.

    ``gain`` is the sum over a feature's splits, ``splits`` their number. ``permutation`` is the loss of the metric on
    test rows after the feature's values were shuffled between rows (Breiman, 2001); at 0 or less the feature does not
    help. It is omitted if the metric is undefined.

    Args:
        model: a trained model; its importance has the features in the order of the columns.
        matrix: ``(n, n_features)`` float64, test rows.
        metric: name of the metric.
        measure: returns the metric of scores of these rows.
        seed: seed of the shuffles.
    """
    result: dict[str, Any] = {"gain": dict(model.importance)}
    if model.splits:
        result["splits"] = dict(model.splits)
    losses = _permutation_losses(model, matrix, measure, seed)
    if losses is None:
        return result
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    return result | {"permutation": {name: sign * value for name, value in losses.items()}, "metric": metric}


def _permutation_losses(model: TrainedModel, matrix: Matrix, measure: Measure, seed: int) -> Mapping[str, float] | None:
    """Return the decrease of the metric for each shuffled feature; None if the metric is undefined."""
    reference = measure(model.score(matrix))
    if reference is None:
        return None
    rng = np.random.default_rng(seed)
    losses: dict[str, float] = {}
    # Shuffling keeps the feature's distribution and removes its relation to the label.
    for index, name in enumerate(model.importance):
        shuffled = matrix.copy()
        shuffled[:, index] = rng.permutation(shuffled[:, index])
        value = measure(model.score(shuffled))
        if value is None:
            return None
        losses[name] = reference - value
    return losses


def profile_features(matrix: AnyMatrix, names: Sequence[str]) -> dict[str, Any]:
    """Return a histogram and summary per feature, as plain JSON values.

    A feature has ``edges`` (at most 19, increasing) and one more ``counts``: bin ``i`` contains the values with
    ``edges[i - 1] <= value < edges[i]``; the outer bins are open and include infinities. Edges are values of the data:
    quantiles, or all values if there are at most 20. ``nulls`` counts NaN; ``min``, ``max`` and ``mean`` are of finite
    values, None without any.

    Args:
        matrix: ``(n, n_features)`` float64.
        names: names of the columns, in order.

    >>> profile_features(np.array([[1.0], [2.0], [np.nan]]), ["x"])["features"]["x"]["counts"]
    [1, 1]
    """
    return {
        "rows": int(matrix.shape[0]),
        "features": {name: column_profile(_read_column(matrix, index)) for index, name in enumerate(names)},
    }


def _read_column(matrix: AnyMatrix, index: int) -> Vector:
    return matrix.read_column(index) if isinstance(matrix, StoredMatrix) else matrix[:, index]


def bin_edges(values: Vector, bins: int = _PROFILE_BINS) -> Vector:
    """Return the inner edges, at most ``bins - 1``, increasing; none for fewer than two distinct values."""
    # Sorted once, in one copy: a training set larger than memory has very long columns.
    ordered = np.sort(values[np.isfinite(values)])
    if not ordered.size:
        return ordered
    is_new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    # -0.0 + 0.0 is 0.0: otherwise the first zero of the data would decide the sign of the edge.
    if np.count_nonzero(is_new) <= bins:
        inner: Vector = ordered[is_new][1:] + 0.0
        return inner
    # As `numpy.quantile` with the method "higher".
    places = np.ceil((ordered.size - 1) * (np.arange(1, bins) / bins)).astype(np.intp)
    unique = np.unique(ordered[places] + 0.0)
    # An edge at the smallest value would leave the first bin without any value.
    above: Vector = unique[unique > ordered[0]]
    return above


def bin_counts(values: Vector, edges: Vector) -> list[int]:
    """Return the number of values in each of the ``len(edges) + 1`` bins; NaN is in none.

    >>> bin_counts(np.array([-1.0, 0.0, 0.5, np.nan, np.inf]), np.array([0.0, 1.0]))
    [1, 2, 1]
    """
    total = np.zeros(edges.size + 1, dtype=np.int64)
    for first in range(0, values.size, _COUNTED_ROWS):
        part = values[first : first + _COUNTED_ROWS]
        places = np.searchsorted(edges, part[~np.isnan(part)], side="right")
        total += np.bincount(places, minlength=total.size)
    counts: list[int] = total.tolist()
    return counts


def column_profile(values: Vector) -> dict[str, Any]:
    """Return histogram and summary of one column, shape ``(n,)``; see ``profile``."""
    edges = bin_edges(values)
    counts, nulls = bin_counts(values, edges), int(np.isnan(values).sum())
    finite = values[np.isfinite(values)]
    return {
        "edges": edges.tolist(),
        "counts": counts,
        "nulls": nulls,
        "null_share": nulls / values.size if values.size else 0.0,
        "min": float(finite.min()) if finite.size else None,
        "max": float(finite.max()) if finite.size else None,
        # Each value is divided first, so that the sum of huge values does not overflow.
        "mean": float((finite / finite.size).sum()) if finite.size else None,
    }
