"""Evaluates a model on test rows, and compares it with a constant prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.metrics import METRICS
from skewless.contract.spec import ModelSpec, Task
from skewless.infra.models.runtimes.port import Scores, Vector
from skewless.validation.evaluation.metrics import (
    BINS,
    Groups,
    Metrics,
    ScoredRows,
    calibration_bins,
    metric_value,
    weighted_means,
)

Row = dict[Literal["low", "high", "rows", "weight", "score", "label"], float]

_METRICS: Mapping[Task, Sequence[str]] = {
    "binary": (
        *("auc", "log_loss", "brier", "calibration_error", "precision", "recall"),
        *("precision_at_base_rate", "recall_at_base_rate"),
    ),
    "regression": ("rmse", "mae"),
    "multiclass": ("log_loss", "accuracy", "auc_macro"),
    "ranking": ("ndcg", "ndcg_at_5"),
}


def evaluate(
    labels: Vector,
    scores: Scores,
    weights: Vector | None = None,
    *,
    task: Task = "binary",
    groups: Groups | None = None,
) -> Metrics:
    """Return the metrics of scores against labels; ``baseline_*`` are those of the constant prediction.

    The constant is the base rate; for a multiclass model the share of each class, for a ranking model any number.
    An undefined metric (AUC of one class, precision without positives) is None, never NaN.

    Args:
        labels: ``(n,)`` float64; 0 or 1 for a binary task, see TrainingSet.
        scores: float64 predictions: ``(n,)`` probabilities or values, or ``(n, k)`` probabilities of k classes.
        weights: ``(n,)`` sample weights, all 1 if None.
        task: the task of the model.
        groups: ``(n,)`` int64, query of each row, for ranking; None: all rows are one query.

    Raises:
        SourceError: rows are missing, all weights are 0, or lengths differ.

    >>> evaluate(np.array([0.0, 1.0]), np.array([0.2, 0.9]))["auc"]
    1.0
    """
    weight = np.ones_like(labels) if weights is None else weights
    if not (labels.shape == scores.shape[:1] == weight.shape) or not weight.sum() > 0:
        raise SourceError(
            "evaluation", "has no rows, or parts of different lengths", value=labels.size, fix="widen Split.test"
        )
    if task == "multiclass":
        shares = np.bincount(labels.astype(np.int64), weights=weight, minlength=scores.shape[1]) / weight.sum()
        base, constant = float(shares.max()), np.broadcast_to(shares, scores.shape)
    else:
        base = float(weighted_means(labels, weight[None])[0])
        constant = np.full_like(scores, base)
    metrics, baseline = (
        {
            name: metric_value(name, ScoredRows(labels=labels, scores=values, groups=groups), weight)
            for name in _METRICS[task]
        }
        for values in (scores, constant)
    )
    sizes: Metrics = {"rows": float(labels.size), "base_rate": base}
    return sizes | metrics | {f"baseline_{name}": value for name, value in baseline.items()}


def gate_metric(spec: ModelSpec, metrics: Mapping[str, float | None]) -> float | None:
    """Return the metric of a model's gate, None if it is undefined for these rows.

    Raises:
        DefinitionError: the evaluation has no metric of that name.
    """
    if spec.gate.metric not in metrics:
        raise DefinitionError(
            f"model {spec.name!r} gate",
            "names a metric that the evaluation does not have",
            value=spec.gate.metric,
            fix=f"use one of {', '.join(sorted(metrics))}",
        )
    return metrics[spec.gate.metric]


def gate_baseline(spec: ModelSpec, metrics: Mapping[str, float | None]) -> float | None:
    """Return the gate's metric of the constant prediction, None if no model can be better.

    A constant is perfectly calibrated and predicts every positive: its ``calibration_error`` and recalls are optimal.

    >>> from skewless.contract.spec import Gate
    >>> from types import SimpleNamespace
    >>> gate_baseline(SimpleNamespace(gate=Gate(metric="auc")), {"auc": 0.7, "baseline_auc": 0.5})
    0.5
    """
    metric = METRICS.get(spec.gate.metric)
    best = metric is not None and metric.constant_is_best
    return None if best else metrics.get(f"baseline_{spec.gate.metric}")


def calibration_table(labels: Vector, scores: Vector, weights: Vector | None = None, bins: int = BINS) -> list[Row]:
    """Return mean score and mean label in bins of equal count; equal scores share a bin."""
    weight = np.ones_like(labels) if weights is None else weights
    group = calibration_bins(scores, bins)
    rows: list[Row] = []
    for index in np.unique(group):
        mask = group == index
        total = weight[mask].sum()
        share = weight[mask] / total if total else np.zeros(int(mask.sum()))
        rows.append(
            {
                "low": float(scores[mask].min()),
                "high": float(scores[mask].max()),
                "rows": int(mask.sum()),
                "weight": float(total),
                "score": float((scores[mask] * share).sum()),
                "label": float((labels[mask] * share).sum()),
            }
        )
    return rows
