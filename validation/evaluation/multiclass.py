"""The quality of class probabilities."""

from __future__ import annotations

import numpy as np

from skewless.infra.runtimes.port import Matrix, Vector
from skewless.validation.evaluation.auc import auc
from skewless.validation.evaluation.metrics import Metrics

_EPSILON = 1e-15


def multiclass_metrics(labels: Vector, scores: Matrix, weights: Vector) -> tuple[float, Metrics, Metrics]:
    """Return the largest share of a class, the metrics, and those of predicting each class's share always.

    Args:
        labels: ``(n,)`` float64, 0 to k - 1.
        scores: ``(n, k)`` float64 probabilities.
        weights: ``(n,)`` float64, some above 0.
    """
    shares = np.bincount(labels.astype(np.int64), weights=weights, minlength=scores.shape[1]) / weights.sum()
    constant = np.broadcast_to(shares, scores.shape)
    return float(shares.max()), _measure(labels, scores, weights), _measure(labels, constant, weights)


def _measure(labels: Vector, scores: Matrix, weights: Vector) -> Metrics:
    own = np.take_along_axis(scores, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    return {
        "log_loss": float(np.average(-np.log(np.clip(own, _EPSILON, 1.0)), weights=weights)),
        "accuracy": float(np.average(scores.argmax(axis=1) == labels, weights=weights)),
        "auc_macro": _macro_auc(labels, scores, weights),
    }


def _macro_auc(labels: Vector, scores: Matrix, weights: Vector) -> float | None:
    """Return the mean over the classes of one against the rest; None if no class has both."""
    single = [
        auc((labels == column).astype(np.float64), scores[:, column], weights) for column in range(scores.shape[1])
    ]
    exist = [value for value in single if value is not None]
    return float(np.mean(exist)) if exist else None
