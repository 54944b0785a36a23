"""Training: dataset -> model -> evaluation -> package. Nothing is served until the package is promoted."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infra.packages.package import Package, PackageContents
from infra.packages.writer import write_package
from infra.runtimes.port import Scores
from infra.runtimes.reference import Reference, reference_rows
from infra.served_model import load_model, pin
from skewless.clock import from_us
from skewless.spec import ModelSpec
from skewless.status import BoolArray
from training.dataset import Dataset
from training.evaluation import evaluate, gate_metric
from training.metrics import Metrics
from training.profile import profile
from training.trainers.choice import trainer_for
from training.trainers.port import TrainedModel, TrainingSet


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A new package with its quality on the test period."""

    package: Package
    metrics: dict[str, Any]


def train(dataset: Dataset, spec: ModelSpec, packages: Path, *, threads: int, now_us: int) -> Trained:
    """Train a model, write its package, and open it again as the server would.

    Raises:
        DefinitionError: the gate's metric is none of the evaluation's; nothing was written.
        PackageError: the runtime that would serve it differs from the library that trained it.
    """
    validation = _rows(dataset, dataset.validation) if dataset.validation.any() else None
    model = trainer_for(spec.algorithm, threads).train(_rows(dataset, dataset.train), spec, validation)
    metrics = measure(dataset, spec, model.score(dataset.matrix[dataset.test]))
    gate_metric(spec, metrics)
    package = write_package(packages, spec.name, _contents(dataset, spec, model, metrics, now_us))
    load_model(packages, spec.name, package.version).runtime.close()
    return Trained(package=package, metrics=metrics)


def measure(dataset: Dataset, spec: ModelSpec, scores: Scores) -> Metrics:
    """Return the quality of scores of the dataset's test rows."""
    test = dataset.test
    groups = None if dataset.groups is None else dataset.groups[test]
    return evaluate(dataset.labels[test], scores, dataset.weights[test], task=spec.task, groups=groups)


def _rows(dataset: Dataset, chosen: BoolArray) -> TrainingSet:
    categorical = tuple(i for i, name in enumerate(dataset.names) if name in dataset.vocabularies)
    return TrainingSet(
        matrix=np.ascontiguousarray(dataset.matrix[chosen]),
        labels=dataset.labels[chosen],
        feature_names=dataset.names,
        categorical=categorical,
        weights=dataset.weights[chosen],
        groups=None if dataset.groups is None else dataset.groups[chosen],
    )


def _contents(
    dataset: Dataset, spec: ModelSpec, model: TrainedModel, metrics: dict[str, Any], now_us: int
) -> PackageContents:
    rows = reference_rows(model.thresholds, len(dataset.names), spec.seed)
    train = dataset.matrix[dataset.train]
    return PackageContents(
        model_name=model.file_name,
        model=model.model,
        spec=spec,
        plan=pin(dataset.plan, dataset.vocabularies),
        reference=Reference(rows, model.raw_margin(rows), model.score(rows)),
        profile=profile(train, dataset.names) | ({"mode_gap": dataset.gap.as_dict()} if dataset.gap else {}),
        metrics=metrics,
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
        },
        extra={f"{item.name}.py": item.source for item in dataset.plan.transforms},
    )
