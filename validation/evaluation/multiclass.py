"""The quality of class probabilities."""

from __future__ import annotations

import numpy as np

from skewless.infra.runtimes.port import Matrix, Vector
from skewless.validation.evaluation.auc import auc
from skewless.validation.evaluation.metrics import Metrics
from skewless.validation.evaluation.row_values import mean_metric


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
    return {
        "log_loss": mean_metric("log_loss", labels, scores, weights),
        "accuracy": mean_metric("accuracy", labels, scores, weights),
        "auc_macro": _macro_auc(labels, scores, weights),
    }


def _macro_auc(labels: Vector, scores: Matrix, weights: Vector) -> float | None:
    """Return the mean over the classes of one against the rest; None if no class has both."""
    single = [
        auc((labels == column).astype(np.float64), scores[:, column], weights) for column in range(scores.shape[1])
    ]
    exist = [value for value in single if value is not None]
    return float(np.mean(exist)) if exist else None
