"""A dataset's rows as trainers take them, and the quality of scores of its test rows."""

from __future__ import annotations

import numpy as np

from skewless.contract.spec import ModelSpec
from skewless.contract.status import BoolArray
from skewless.infra.runtimes.port import Scores
from skewless.training.dataset import Dataset
from skewless.training.trainers.port import TrainingSet
from skewless.validation.evaluation.evaluation import evaluate
from skewless.validation.evaluation.metrics import Metrics


def measure(dataset: Dataset, spec: ModelSpec, scores: Scores) -> Metrics:
    """Return the quality of scores of the dataset's test rows."""
    test = dataset.test
    groups = None if dataset.groups is None else dataset.groups[test]
    return evaluate(dataset.labels[test], scores, dataset.weights[test], task=spec.task, groups=groups)


def training_rows(dataset: Dataset, chosen: BoolArray) -> TrainingSet:
    """Return some rows as a trainer takes them."""
    categorical = tuple(i for i, name in enumerate(dataset.names) if name in dataset.vocabularies)
    return TrainingSet(
        matrix=np.ascontiguousarray(dataset.matrix[chosen]),
        labels=dataset.labels[chosen],
        feature_names=dataset.names,
        categorical=categorical,
        weights=dataset.weights[chosen],
        groups=None if dataset.groups is None else dataset.groups[chosen],
    )
