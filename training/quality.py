"""Scores a dataset's test rows with a version, and measures and describes the quality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from skewless.contract.errors import PackageError
from skewless.contract.spec import ModelSpec
from skewless.infra.models.packages.served_model import load_model
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.runtimes.port import Scores
from skewless.training.training_data import TrainingData
from skewless.validation.evaluation.evaluation import evaluate
from skewless.validation.evaluation.metrics import Metrics


def measure(dataset: TrainingData, spec: ModelSpec, scores: Scores) -> Metrics:
    """Return the metrics of scores of the dataset's test rows."""
    test = dataset.test
    groups = None if dataset.groups is None else dataset.groups[test]
    return evaluate(dataset.labels[test], scores, dataset.weights[test], task=spec.task, groups=groups)


def score_version(dataset: TrainingData, spec: ModelSpec, store: PackageStore, version: str) -> Scores:
    """Return a version's scores of the test rows, from the vectors of its own pinned plan.

    Raises:
        PackageError: the package is altered, cannot be loaded, or has another task or other classes.
        DefinitionError: a transform of the package gives other bits for one row than for many.
        SourceError: the label table lacks a key or request field that the version needs.
        StoreError: the log of one of its views is missing.
    """
    with load_model(store, spec.name, version) as model:
        trained = model.package.spec
        if (trained.task, trained.classes) != (spec.task, spec.classes):
            raise PackageError(
                f"model {spec.name!r} {version}",
                "has another task",
                value=" ".join([trained.task, *trained.classes]),
                fix="train it again with the applied plan",
            )
        batches = dataset.test_batches(model.assembler, trained.labels)
        return np.concatenate([model.runtime.score(np.ascontiguousarray(batch)) for batch in batches])


def quality_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return lines for people about a model's quality, compared with the constant prediction of the base rate."""
    if "auc" not in metrics:
        return [
            f"{name} {_format_number(metrics[name])} (base {_format_number(metrics[f'baseline_{name}'])})"
            for name in metrics
            if f"baseline_{name}" in metrics
        ]
    auc = _format_number(metrics["auc"])
    base, error = metrics["baseline_log_loss"], metrics["calibration_error"]
    precision, recall = (_format_percent(metrics[f"{name}_at_base_rate"]) for name in ("precision", "recall"))
    return [
        f"AUC {auc}, log loss {metrics['log_loss']:.4f} (base rate {metrics['base_rate']:.1%}: {base:.4f})",
        f"precision {precision}, recall {recall} at the base rate; calibration error {error:.4f}",
    ]


def _format_number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _format_percent(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1%}"
