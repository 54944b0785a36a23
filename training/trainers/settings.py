"""What both trainers read out of a ModelSpec."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.runtimes.port import Vector
from skewless.errors import DefinitionError, SourceError
from skewless.spec import ModelSpec
from training.trainers.port import TrainingSet

_THRESHOLDS_PER_FEATURE = 40
_EARLY_STOPPING = "early_stopping_rounds"
_ELSEWHERE = {
    "num_iterations": "rounds",
    "num_iteration": "rounds",
    "n_estimators": "rounds",
    "num_boost_round": "rounds",
    "num_round": "rounds",
    "num_rounds": "rounds",
    "n_iter": "rounds",
    "seed": "seed",
    "random_state": "seed",
    "random_seed": "seed",
    "scale_pos_weight": "class_weight",
    "is_unbalance": "class_weight",
    "num_class": "task",
}


@dataclass(frozen=True)
class Parameters:
    """The user's parameters, and after how many rounds without progress to stop, if at all."""

    values: dict[str, Any]
    early_stopping: int | None


def parameters(spec: ModelSpec, validation: TrainingSet | None) -> Parameters:
    """Return the user's parameters, without early stopping, which is a matter of the training loop.

    Raises:
        DefinitionError: a parameter that the spec has a field for, or early stopping without
            validation rows.
    """
    for name in sorted(_ELSEWHERE.keys() & spec.params.keys()):
        raise DefinitionError(
            f"model {spec.name!r} params", "has a field of its own", value=name, fix=f"set ModelSpec.{_ELSEWHERE[name]}"
        )
    stopping = spec.params.get(_EARLY_STOPPING)
    if stopping is not None and validation is None:
        raise DefinitionError(
            f"model {spec.name!r} params", "early stopping needs validation rows", fix="set Split.validation"
        )
    return Parameters({key: value for key, value in spec.params.items() if key != _EARLY_STOPPING}, stopping)


def row_weights(rows: TrainingSet, spec: ModelSpec) -> Vector | None:
    """Return sample weight times class weight per row, None if every row weighs the same."""
    if spec.class_weight == 1.0 or spec.task != "binary":
        return rows.weights
    by_class = np.where(rows.labels == 1.0, spec.class_weight, 1.0)
    return by_class if rows.weights is None else by_class * rows.weights


def check_labels(rows: TrainingSet, spec: ModelSpec) -> None:
    """Refuse binary labels other than 0 and 1, or of one class only."""
    if spec.task != "binary":
        return
    found = np.unique(rows.labels)
    if not np.array_equal(found, [0.0, 1.0]):
        raise SourceError(
            f"labels of model {spec.name!r}",
            "are not both 0 and 1",
            value=str(found[:5].tolist()),
            fix="check its label",
        )


def capped(found: Iterable[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Return unique (feature, threshold) pairs, sorted, thinned evenly to a few per feature.

    >>> capped([(1, 2.0), (0, 1.0), (1, 2.0)])
    ((0, 1.0), (1, 2.0))
    """
    by_feature: dict[int, set[float]] = {}
    for feature, threshold in found:
        by_feature.setdefault(feature, set()).add(threshold)
    return tuple((feature, value) for feature in sorted(by_feature) for value in _thinned(by_feature[feature]))


def _thinned(values: set[float]) -> list[float]:
    ordered = sorted(values)
    if len(ordered) <= _THRESHOLDS_PER_FEATURE:
        return ordered
    picks = np.linspace(0, len(ordered) - 1, _THRESHOLDS_PER_FEATURE).round().astype(int)
    return [ordered[pick] for pick in picks]
