"""Training: dataset -> model -> evaluation -> package. Nothing is served until the package is promoted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from skewless.contract.bounds import Bounds
from skewless.contract.spec import ModelSpec
from skewless.infra.packages.package import Package
from skewless.infra.packages.served_model import load_model
from skewless.infra.packages.store import PackageStore
from skewless.infra.packages.writer import write_package
from skewless.infra.runtimes.port import Scores
from skewless.training.contents import Fitted, package_contents
from skewless.training.dataset import Dataset
from skewless.training.measure import measure, training_rows
from skewless.training.search import search
from skewless.training.trainers.choice import trainer_for
from skewless.training.trainers.settings import refuse_empty_features
from skewless.validation.evaluation.evaluation import gate_metric


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A new package with its scores of the test rows, and their quality."""

    package: Package
    metrics: dict[str, Any]
    scores: Scores


def train(
    dataset: Dataset, spec: ModelSpec, store: PackageStore, *, threads: int, now_us: int, bounds: Bounds | None = None
) -> Trained:
    """Train a model, write its package, and open it again as the server would.

    Args:
        bounds: what must hold of its features and request fields.

    Raises:
        SourceError: labels that the task cannot have, or no feature with a value; nothing was written.
        DefinitionError: the gate's metric is none of the evaluation's, or the search cannot be; nothing was written.
        PackageError: the runtime that would serve it differs from the library that trained it.
    """
    trainer, rows = trainer_for(spec.algorithm, threads), training_rows(dataset, dataset.train)
    validation = training_rows(dataset, dataset.validation) if dataset.validation.any() else None
    refuse_empty_features(spec, rows)
    found = search(trainer, rows, spec, validation) if spec.search else None
    if found is not None:
        spec = replace(spec, params=found.params)
    model = trainer.train(rows, spec, validation)
    scores = model.score(dataset.matrix[dataset.test])
    metrics = measure(dataset, spec, scores)
    gate_metric(spec, metrics)
    fitted = Fitted(spec=spec, model=model, scores=scores, metrics=metrics, search=found)
    package = write_package(store, spec.name, package_contents(dataset, fitted, bounds or Bounds(), now_us))
    load_model(store, spec.name, package.version).runtime.close()
    return Trained(package=package, metrics=metrics, scores=scores)
