"""The area under the ROC curve."""

from __future__ import annotations

import numpy as np

from skewless.infra.runtimes.port import Vector


def auc(labels: Vector, scores: Vector, weights: Vector | None = None) -> float | None:
    """Return the chance that a positive scores above a negative, ties counting one half; None for one class.

    >>> auc(np.array([0.0, 1.0, 1.0]), np.array([0.5, 0.5, 0.7]))
    0.75
    """
    weight = np.ones_like(labels) if weights is None else weights
    _, group = np.unique(scores, return_inverse=True)
    positive = np.bincount(group, weights=weight * (labels == 1.0))
    negative = np.bincount(group, weights=weight * (labels != 1.0))
    pairs = positive.sum() * negative.sum()
    if pairs == 0:
        return None
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / pairs)
