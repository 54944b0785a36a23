"""Estimates a classifier's quality without labels, if its probabilities are still correct.

Confidence-based performance estimation (CBPE; NannyML, https://nannyml.readthedocs.io, "How it works: performance
estimation"; Bialek et al., 2024, arXiv:2401.08348): each row counts with every label, weighted by the label's
probability. This follows changes of the features, but not changes of the relation between features and labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skewless.contract.spec import Task
from skewless.infra.runtimes.port import Matrix, Scores, Vector
from skewless.validation.evaluation.evaluation import Row, evaluate
from skewless.validation.evaluation.metrics import Metrics

Table = Sequence[Row]


def estimate_metrics(scores: Scores, task: Task, calibration: Table | None = None) -> Metrics | None:
    """Return the expected metrics of scores; None without rows, or if the scores are not probabilities.

    Args:
        scores: ``(n,)`` float64 probabilities of label 1, or ``(n, k)`` of k classes.
        task: only ``binary`` and ``multiclass`` have probabilities.
        calibration: mean score and share of label 1 of a binary model on test rows, see ``calibration_table``;
            None: the scores are used as probabilities.

    >>> estimate_metrics(np.array([0.0, 1.0]), "binary")["auc"]
    1.0
    """
    if not len(scores) or task not in {"binary", "multiclass"}:
        return None
    if task == "multiclass":
        return _expected_metrics(scores, scores, task)
    probabilities = calibrate(scores, calibration or ())
    return _expected_metrics(scores, np.stack([1.0 - probabilities, probabilities], axis=1), task)


def calibrate(scores: Vector, table: Table) -> Vector:
    """Return the probability of label 1, by monotone linear interpolation between the bins of a calibration table.

    >>> calibrate(np.array([0.1, 0.3, 0.9]), [{"score": 0.2, "label": 0.1}, {"score": 0.4, "label": 0.3}]).round(2)
    array([0.05, 0.2 , 0.88])
    """
    if not table:
        return scores
    x = np.array([0.0, *(row["score"] for row in table), 1.0])
    # A small bin may have a lower share than the bin before it; a greater score must not become less probable.
    y = np.maximum.accumulate(np.array([0.0, *(row["label"] for row in table), 1.0]))
    return np.interp(scores, x, y)


def _expected_metrics(scores: Scores, probabilities: Matrix, task: Task) -> Metrics:
    """Return the metrics of rows that have every label, weighted by its probability."""
    n, k = probabilities.shape
    labels = np.tile(np.arange(k, dtype=np.float64), n)
    return evaluate(labels, np.repeat(scores, k, axis=0), probabilities.ravel(), task=task) | {"rows": float(n)}
