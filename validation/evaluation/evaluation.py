"""Evaluates a model on test rows, and compares it with a constant prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.metrics import METRICS
from skewless.contract.spec import ModelSpec, Task
from skewless.infra.runtimes.port import Matrix, Scores, Vector
from skewless.validation.evaluation.metrics import Groups, Metrics, auc, mean_metric, ranking_metrics

Row = dict[Literal["low", "high", "rows", "weight", "score", "label"], float]

_BINS = 10
_HALF = 0.5


def evaluate(
    labels: Vector,
    scores: Scores,
    weights: Vector | None = None,
    *,
    task: Task = "binary",
    base_rate: float | None = None,
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
        base_rate: the constant prediction; None: the weighted mean of the labels.
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
        return _with_sizes(labels, *multiclass_metrics(labels, scores, weight))
    base = float(np.average(labels, weights=weight)) if base_rate is None else base_rate
    constant = np.full_like(scores, base)
    if task == "ranking":
        query = np.zeros(labels.size, dtype=np.int64) if groups is None else groups
        metrics, baseline = (ranking_metrics(labels, values, weight, query) for values in (scores, constant))
    else:
        measure = _binary if task == "binary" else _regression
        metrics, baseline = (measure(labels, values, weight, base) for values in (scores, constant))
    return _with_sizes(labels, base, metrics, baseline)


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


def calibration_table(labels: Vector, scores: Vector, weights: Vector | None = None, bins: int = _BINS) -> list[Row]:
    """Return mean score and mean label in bins of equal count; equal scores share a bin."""
    weight = np.ones_like(labels) if weights is None else weights
    group = calibration_bins(scores, bins)
    return [_calibration_row(labels, scores, weight, group == index) for index in np.unique(group)]


def calibration_bins(scores: Vector, bins: int = _BINS) -> NDArray[np.intp]:
    """Return the bin of each score, bins of equal count; equal scores share a bin.

    >>> calibration_bins(np.array([0.1, 0.9, 0.2, 0.8]), bins=2).tolist()
    [0, 1, 0, 1]
    """
    # "higher" makes each edge a score of the data, so rows of equal scores are never split.
    inner = np.unique(np.quantile(scores, np.arange(1, bins) / bins, method="higher"))
    return np.searchsorted(inner, scores, side="right")


def calibration_error(labels: Vector, scores: Vector, weights: Vector | None = None, bins: int = _BINS) -> float:
    """Return the expected calibration error: the weighted mean difference of score and label over the bins."""
    rows = calibration_table(labels, scores, weights, bins)
    total = sum(row["weight"] for row in rows)
    return float(sum(row["weight"] * abs(row["score"] - row["label"]) for row in rows) / total) if total else 0.0


def _with_sizes(labels: Vector, base: float, metrics: Metrics, baseline: Metrics) -> Metrics:
    sizes: Metrics = {"rows": float(labels.size), "base_rate": base}
    return sizes | metrics | {f"baseline_{name}": value for name, value in baseline.items()}


def _binary(labels: Vector, scores: Vector, weight: Vector, base: float) -> Metrics:
    return {
        "auc": auc(labels, scores, weight),
        "log_loss": mean_metric("log_loss", labels, scores, weight),
        "brier": mean_metric("brier", labels, scores, weight),
        "calibration_error": calibration_error(labels, scores, weight),
        "precision": _share(labels == 1.0, scores >= _HALF, weight),
        "recall": _share(scores >= _HALF, labels == 1.0, weight),
        "precision_at_base_rate": _share(labels == 1.0, scores >= base, weight),
        "recall_at_base_rate": _share(scores >= base, labels == 1.0, weight),
    }


def _regression(labels: Vector, scores: Vector, weight: Vector, _base: float) -> Metrics:
    return {
        "rmse": float(np.sqrt(mean_metric("rmse", labels, scores, weight))),
        "mae": mean_metric("mae", labels, scores, weight),
    }


def multiclass_metrics(labels: Vector, scores: Matrix, weights: Vector) -> tuple[float, Metrics, Metrics]:
    """Return the largest class share, the metrics, and the metrics of the constant prediction of all class shares.

    Args:
        labels: ``(n,)`` float64, 0 to k - 1.
        scores: ``(n, k)`` float64 probabilities.
        weights: ``(n,)`` float64, some above 0.
    """
    shares = np.bincount(labels.astype(np.int64), weights=weights, minlength=scores.shape[1]) / weights.sum()
    constant = np.broadcast_to(shares, scores.shape)
    return (
        float(shares.max()),
        _multiclass_metrics(labels, scores, weights),
        _multiclass_metrics(labels, constant, weights),
    )


def _multiclass_metrics(labels: Vector, scores: Matrix, weights: Vector) -> Metrics:
    return {
        "log_loss": mean_metric("log_loss", labels, scores, weights),
        "accuracy": mean_metric("accuracy", labels, scores, weights),
        "auc_macro": _macro_auc(labels, scores, weights),
    }


def _macro_auc(labels: Vector, scores: Matrix, weights: Vector) -> float | None:
    """Return the mean AUC over the classes, each against the rest; None if it is undefined for all classes."""
    single = [
        auc((labels == column).astype(np.float64), scores[:, column], weights) for column in range(scores.shape[1])
    ]
    exist = [value for value in single if value is not None]
    return float(np.mean(exist)) if exist else None


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_], weight: Vector) -> float | None:
    """Return the weighted share of the rows in ``whole`` that are also in ``part``; None without rows."""
    total = weight[whole].sum()
    return float(weight[whole & part].sum() / total) if total else None


def _calibration_row(labels: Vector, scores: Vector, weight: Vector, mask: NDArray[np.bool_]) -> Row:
    total = weight[mask].sum()
    share = weight[mask] / total if total else np.zeros(int(mask.sum()))
    return {
        "low": float(scores[mask].min()),
        "high": float(scores[mask].max()),
        "rows": int(mask.sum()),
        "weight": float(total),
        "score": float((scores[mask] * share).sum()),
        "label": float((labels[mask] * share).sum()),
    }
