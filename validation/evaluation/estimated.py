"""What a classifier's quality should be, before any label is known, if its probabilities are still right.

Confidence-based performance estimation (CBPE; NannyML, https://nannyml.readthedocs.io, "How it works: performance
estimation"; Bialek et al., 2024, arXiv:2401.08348): each row counts as every label with that label's probability. It
follows changes of the features, which change the probabilities; it does not see that what features mean has changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skewless.contract.spec import Task
from skewless.infra.runtimes.port import Matrix, Scores, Vector
from skewless.validation.evaluation.evaluation import Row, evaluate
from skewless.validation.evaluation.metrics import Metrics

Table = Sequence[Row]


def estimate(scores: Scores, task: Task, calibration: Table | None = None) -> Metrics | None:
    """Return the metrics to expect of scores; None where nothing is to be expected: no rows, or no probabilities.

    Args:
        scores: ``(n,)`` float64 probabilities of label 1, or ``(n, k)`` of k classes.
        task: only ``binary`` and ``multiclass`` have probabilities.
        calibration: of a binary model mean score and share of label 1 on rows that it never saw, see
            ``calibration_table``; None: the scores are taken for probabilities.

    >>> estimate(np.array([0.0, 1.0]), "binary")["auc"]
    1.0
    """
    if not len(scores) or task not in {"binary", "multiclass"}:
        return None
    if task == "multiclass":
        return _expected(scores, scores, task)
    likely = calibrated(scores, calibration or ())
    return _expected(scores, np.stack([1.0 - likely, likely], axis=1), task)


def calibrated(scores: Vector, table: Table) -> Vector:
    """Return the probability of label 1: between the bins of a calibration table on straight lines, never falling.

    >>> calibrated(np.array([0.1, 0.3, 0.9]), [{"score": 0.2, "label": 0.1}, {"score": 0.4, "label": 0.3}]).round(2)
    array([0.05, 0.2 , 0.88])
    """
    if not table:
        return scores
    x = np.array([0.0, *(row["score"] for row in table), 1.0])
    y = np.maximum.accumulate(np.array([0.0, *(row["label"] for row in table), 1.0]))
    return np.interp(scores, x, y)


def _expected(scores: Scores, likely: Matrix, task: Task) -> Metrics:
    """Return the metrics of rows that have every label, each weighing its probability."""
    n, k = likely.shape
    labels = np.tile(np.arange(k, dtype=np.float64), n)
    return evaluate(labels, np.repeat(scores, k, axis=0), likely.ravel(), task=task) | {"rows": float(n)}
