"""Builds the contents of a package from a training: model, plan, profile, metrics and curves."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

import numpy as np

from skewless.contract.bounds import Bounds
from skewless.contract.clock import from_us
from skewless.contract.spec import ModelSpec
from skewless.infra.packages.package import PackageContents, pin_plan
from skewless.infra.predictions.record import largest_output
from skewless.infra.runtimes.certification import Reference, reference_rows
from skewless.infra.runtimes.port import Scores
from skewless.training.curves import ROWS, column_profile, compute_curves, compute_importance, profile_features
from skewless.training.dataset import Dataset
from skewless.training.mode_gap import spread_indices
from skewless.training.search import SearchResult
from skewless.training.trainers.port import TrainedModel
from skewless.validation.evaluation.evaluation import calibration_table, evaluate


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedModel:
    """A trained model with its evaluation.

    Args:
        spec: its spec, with the best parameters if there was a search.
        scores: scores of the dataset's test rows.
        metrics: metrics of these scores.
    """

    spec: ModelSpec
    model: TrainedModel
    scores: Scores
    metrics: dict[str, Any]
    search: SearchResult | None = None


def build_package_contents(dataset: Dataset, fitted: FittedModel, bounds: Bounds, now_us: int) -> PackageContents:
    """Return the contents of a trained model's package."""
    spec, model = fitted.spec, fitted.model
    # Rows at the model's own thresholds: there a runtime that rounds or compares otherwise takes another branch
    # (SEMANTICS 6.3).
    rows = reference_rows(model.thresholds, len(dataset.names), spec.seed)
    return PackageContents(
        model_name=model.file_name,
        model=model.model,
        spec=spec,
        plan=pin_plan(dataset.plan, dataset.vocabularies),
        reference=Reference(rows, model.raw_margin(rows), model.score(rows)),
        profile=_profile(dataset, spec, fitted.scores),
        metrics=fitted.metrics,
        fingerprint={
            "dataset": dataset.fingerprint,
            "train_rows": int(dataset.train.sum()),
            "test_rows": int(dataset.test.sum()),
            "counts": dict(dataset.counts),
            "status": {view: dict(counts) for view, counts in dataset.status.items()},
        },
        about={
            "trained_at": from_us(now_us).isoformat(),
            "as_of_us": now_us,
            "library": model.library,
            "python": platform.python_version(),
            "rounds": model.rounds,
            "importance": dict(model.importance),
            "time_mode": spec.time_mode,
        }
        | ({"search": fitted.search.as_dict()} if fitted.search else {}),
        bounds=bounds.as_dict(),
        curves=_curves(dataset, fitted),
        # Server and replay run this text (SEMANTICS 5.1).
        extra={f"{item.name}.py": item.source for item in dataset.plan.transforms},
    )


def _curves(dataset: Dataset, fitted: FittedModel) -> dict[str, Any]:
    test, spec = dataset.test, fitted.spec
    result = compute_curves(dataset.labels[test], fitted.scores, dataset.weights[test], task=spec.task)
    return result | {"learning": dict(fitted.model.learning), "importance": _importance(dataset, fitted)}


def _importance(dataset: Dataset, fitted: FittedModel) -> dict[str, Any]:
    spec, test = fitted.spec, np.flatnonzero(dataset.test)
    rows = test[spread_indices(test.size, ROWS)]
    groups = None if dataset.groups is None else dataset.groups[rows]

    def metric(scores: Scores) -> float | None:
        return evaluate(dataset.labels[rows], scores, dataset.weights[rows], task=spec.task, groups=groups)[
            spec.gate.metric
        ]

    return compute_importance(fitted.model, dataset.matrix[rows], spec.gate.metric, metric, spec.seed)


def _profile(dataset: Dataset, spec: ModelSpec, scores: Scores) -> dict[str, Any]:
    """Return the baseline for drift: feature histograms of training rows, scores and labels of test rows."""
    # Scores of training rows would be too good to compare live scores with, so scores and labels are those of test
    # rows.
    result, test = profile_features(dataset.matrix[dataset.train], dataset.names), dataset.test
    result |= {"score": column_profile(largest_output(scores)), "label": column_profile(dataset.labels[test])}
    if dataset.gap:
        result["mode_gap"] = dataset.gap.as_dict()
    if spec.task == "binary":
        result["calibration"] = calibration_table(dataset.labels[test], scores, dataset.weights[test])
    return result
