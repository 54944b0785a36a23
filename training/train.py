"""Training: dataset -> model -> evaluation -> package. Nothing is served until the package is promoted."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from skewless.contract.bounds import Bounds
from skewless.contract.errors import DefinitionError
from skewless.contract.spec import ALGORITHMS, Algorithm, ModelSpec
from skewless.infra.host.plugins import find_plugin
from skewless.infra.packages.package import Package
from skewless.infra.packages.served_model import load_model
from skewless.infra.packages.store import PackageStore
from skewless.infra.packages.writer import write_package
from skewless.infra.runtimes.port import Scores
from skewless.training.dataset import Dataset
from skewless.training.package_contents import FittedModel, package_contents
from skewless.training.quality import measure
from skewless.training.search import search
from skewless.training.trainers.port import Trainer
from skewless.training.trainers.settings import refuse_empty_features
from skewless.validation.evaluation.evaluation import gate_metric


@dataclass(frozen=True, kw_only=True)
class TrainedVersion:
    """A new package with its scores of the test rows, and their quality."""

    package: Package
    metrics: dict[str, Any]
    scores: Scores


def train(
    dataset: Dataset, spec: ModelSpec, store: PackageStore, *, threads: int, now_us: int, bounds: Bounds | None = None
) -> TrainedVersion:
    """Train a model, write its package, and open it again as the server would.

    Args:
        bounds: what must hold of its features and request fields.

    Raises:
        SourceError: labels that the task cannot have, or no feature with a value; nothing was written.
        DefinitionError: the gate's metric is none of the evaluation's, or the search cannot be; nothing was written.
        PackageError: the runtime that would serve it differs from the library that trained it.
    """
    trainer, rows = trainer_for(spec.algorithm, threads), dataset.training_rows(dataset.train)
    validation = dataset.training_rows(dataset.validation) if dataset.validation.any() else None
    refuse_empty_features(spec, rows)
    found = search(trainer, rows, spec, validation) if spec.search else None
    if found is not None:
        spec = replace(spec, params=found.params)
    model = trainer.train(rows, spec, validation)
    scores = model.score(dataset.matrix[dataset.test])
    metrics = measure(dataset, spec, scores)
    gate_metric(spec, metrics)
    fitted = FittedModel(spec=spec, model=model, scores=scores, metrics=metrics, search=found)
    package = write_package(store, spec.name, package_contents(dataset, fitted, bounds or Bounds(), now_us))
    load_model(store, spec.name, package.version).runtime.close()
    return TrainedVersion(package=package, metrics=metrics, scores=scores)


def trainer_for(algorithm: Algorithm, threads: int = 1) -> Trainer:
    """Return the trainer; its library is imported here and not before (seconds).

    An algorithm that is not ours is trained by what a package registers for it in the entry point group
    ``skewless.trainers``: a function from the number of threads to a Trainer.

    Raises:
        DefinitionError: the library is not installed, or nothing trains this algorithm.
    """
    # Threads that spin while they wait make training three times slower beside any other load.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if algorithm in ALGORITHMS:
        return _ours(algorithm, threads)
    make: Callable[[int], Trainer] | None = find_plugin("skewless.trainers", algorithm)
    if make is None:
        raise DefinitionError(
            f"algorithm {algorithm!r}",
            "is unknown",
            fix=f"use one of {', '.join(ALGORITHMS)}, or install what registers it in skewless.trainers",
        )
    return make(threads)


def _ours(algorithm: Algorithm, threads: int) -> Trainer:
    try:
        if algorithm == "lightgbm":
            from skewless.training.trainers.lightgbm import LightGBMTrainer  # noqa: PLC0415 - seconds to import

            return LightGBMTrainer(threads)
        if algorithm == "xgboost":
            from skewless.training.trainers.xgboost import XGBoostTrainer  # noqa: PLC0415 - as above

            return XGBoostTrainer(threads)
        from skewless.training.trainers.sklearn import SklearnTrainer  # noqa: PLC0415 - as above

        return SklearnTrainer(threads)
    except ImportError as error:
        extra = "sklearn" if algorithm == "sklearn" else "cpu"
        raise DefinitionError(
            f"algorithm {algorithm!r}",
            "is not installed",
            value=str(error),
            fix=f"install skewless with the extra '{extra}'",
        ) from error
