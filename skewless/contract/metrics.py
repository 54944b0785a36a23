"""The metrics of a model: their descriptions and directions; validation/evaluation computes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Args:
        words: description for reports.
        lower_is_better: whether a lower value is better.
        constant_is_best: whether a constant prediction can have the best value; such a metric cannot rank models.
    """

    words: str
    lower_is_better: bool = False
    constant_is_best: bool = False


METRICS = {
    "auc": Metric(words="Chance that a positive row scores higher than a negative one; 0.5 is guessing."),
    "log_loss": Metric(words="Mean surprise of the outcomes given the scores; lower is better.", lower_is_better=True),
    "auc_macro": Metric(words="Mean AUC of each class against all others."),
    "brier": Metric(
        words="Mean squared distance between probability and outcome; lower is better.", lower_is_better=True
    ),
    "calibration_error": Metric(
        words="Mean distance between predicted and observed share of positives, bin by bin; 0 is best.",
        lower_is_better=True,
        constant_is_best=True,
    ),
    "precision": Metric(words="Share of positives among rows scored 0.5 or more."),
    "recall": Metric(words="Share of the positives that were scored 0.5 or more.", constant_is_best=True),
    "precision_at_base_rate": Metric(words="Share of positives among rows scored at or above the base rate."),
    "recall_at_base_rate": Metric(
        words="Share of the positives that were scored at or above the base rate.", constant_is_best=True
    ),
    "accuracy": Metric(words="Share of rows whose class was the one with the highest score."),
    "rmse": Metric(words="Root mean squared error, in the unit of the label; lower is better.", lower_is_better=True),
    "mae": Metric(words="Mean absolute error, in the unit of the label; lower is better.", lower_is_better=True),
    "ndcg": Metric(words="Normalized discounted cumulative gain: how near the order is to the best one, 0 to 1."),
    "ndcg_at_5": Metric(words="The same of the first five places."),
}
LOWER_IS_BETTER = frozenset(name for name, metric in METRICS.items() if metric.lower_is_better)
