"""A model's quality in words, beside that of the constant prediction of the base rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def quality_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return a model's quality for people, against the constant prediction of the base rate."""
    if "auc" not in metrics:
        return [
            f"{name} {_number(metrics[name])} (base {_number(metrics[f'baseline_{name}'])})"
            for name in metrics
            if f"baseline_{name}" in metrics
        ]
    auc = _number(metrics["auc"])
    base, error = metrics["baseline_log_loss"], metrics["calibration_error"]
    precision, recall = _percent(metrics["precision_at_base_rate"]), _percent(metrics["recall_at_base_rate"])
    return [
        f"AUC {auc}, log loss {metrics['log_loss']:.4f} (of the base rate {metrics['base_rate']:.1%}: {base:.4f})",
        f"precision {precision}, recall {recall} at the base rate; calibration error {error:.4f}",
    ]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1%}"
