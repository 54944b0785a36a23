"""Reads and checks the training settings of a ModelSpec."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.spec import ModelSpec, Task
from skewless.infra.runtimes.port import Vector
from skewless.training.trainers.port import TrainingSet

_THRESHOLDS_PER_FEATURE = 40
# LightGBM has gains for the labels 0 to 30 by default.
_LARGEST_GAIN = 30
_EARLY_STOPPING = "early_stopping_rounds"
# Names in all libraries. If one were also a parameter, it and the spec could differ, and one would silently lose.
_SPEC_FIELDS = {
    "num_iterations": "rounds",
    "num_iteration": "rounds",
    "n_estimators": "rounds",
    "num_boost_round": "rounds",
    "num_round": "rounds",
    "num_rounds": "rounds",
    "n_iter": "rounds",
    "max_iter": "rounds",
    "seed": "seed",
    "random_state": "seed",
    "random_seed": "seed",
    "scale_pos_weight": "class_weight",
    "is_unbalance": "class_weight",
    "num_class": "classes",
    "class_weight": "class_weight",
}


@dataclass(frozen=True)
class Parameters:
    """The user's parameters, and the rounds without progress after which training stops (None: never)."""

    values: dict[str, Any]
    early_stopping: int | None


def split_parameters(spec: ModelSpec, validation: TrainingSet | None) -> Parameters:
    """Return the user's parameters, with early stopping separated, because the training loop handles it.

    Raises:
        DefinitionError: a parameter has its own field in the spec, or early stopping has no validation rows.
    """
    for name in sorted(_SPEC_FIELDS.keys() & spec.params.keys()):
        raise DefinitionError(
            f"model {spec.name!r} params",
            "has its own field in ModelSpec",
            value=name,
            fix=f"set ModelSpec.{_SPEC_FIELDS[name]}",
        )
    stopping = spec.params.get(_EARLY_STOPPING)
    if stopping is not None and validation is None:
        raise DefinitionError(
            f"model {spec.name!r} params", "early stopping needs validation rows", fix="set Split.validation"
        )
    return Parameters({key: value for key, value in spec.params.items() if key != _EARLY_STOPPING}, stopping)


def row_weights(rows: TrainingSet, spec: ModelSpec) -> Vector | None:
    """Return sample weight times class weight per row, None if all rows have equal weights."""
    if spec.class_weight == 1.0 or spec.task != "binary":
        return rows.weights
    by_class = np.where(rows.labels == 1.0, spec.class_weight, 1.0)
    return by_class if rows.weights is None else by_class * rows.weights


def check_task(spec: ModelSpec, possible: Sequence[Task]) -> None:
    """Check that a library supports the spec's task.

    Raises:
        DefinitionError: it does not.
    """
    if spec.task not in possible:
        raise DefinitionError(
            f"model {spec.name!r} task",
            f"cannot be trained by {spec.algorithm}",
            value=spec.task,
            fix=f"use one of {', '.join(possible)}, or another algorithm",
        )


def check_labels(rows: TrainingSet, spec: ModelSpec) -> None:
    """Check that the labels fit the task.

    Raises:
        SourceError: binary labels are not 0 and 1, or all equal; multiclass labels are not class numbers, or all
            equal; ranking labels are not integers from 0 to 30.
    """
    values = np.unique(rows.labels)
    if spec.task == "binary" and not np.array_equal(values, [0.0, 1.0]):
        raise _label_error(spec, "are not both 0 and 1", values)
    if spec.task == "multiclass" and not (_are_integers(values, len(spec.classes) - 1) and values.size > 1):
        raise _label_error(spec, f"are not at least two of the classes 0 to {len(spec.classes) - 1}", values)
    if spec.task == "ranking" and not _are_integers(values, _LARGEST_GAIN):
        raise _label_error(spec, f"are not integers from 0 to {_LARGEST_GAIN}", values)


def check_features_present(spec: ModelSpec, rows: TrainingSet) -> None:
    """Check that the rows have a feature value; without one, training would give a constant.

    Raises:
        SourceError: all features of all rows are null.
    """
    if np.isnan(rows.matrix).all():
        raise SourceError(
            f"training rows of model {spec.name!r}",
            "have no feature value",
            value=f"{len(rows.labels)} rows",
            fix="materialize the views for the training period, and check keys and ttl",
        )


def _are_integers(values: Vector, largest: int) -> bool:
    return bool(((values == np.floor(values)) & (values >= 0) & (values <= largest)).all())


def _label_error(spec: ModelSpec, problem: str, values: Vector) -> SourceError:
    return SourceError(f"labels of model {spec.name!r}", problem, value=str(values[:5].tolist()), fix="check its label")


def cap_thresholds(pairs: Iterable[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Return unique (feature, threshold) pairs, sorted, reduced evenly to a few per feature.

    >>> cap_thresholds([(1, 2.0), (0, 1.0), (1, 2.0)])
    ((0, 1.0), (1, 2.0))
    """
    by_feature: dict[int, set[float]] = {}
    for feature, threshold in pairs:
        by_feature.setdefault(feature, set()).add(threshold)
    return tuple((feature, value) for feature in sorted(by_feature) for value in _reduce(by_feature[feature]))


def _reduce(values: set[float]) -> list[float]:
    ordered = sorted(values)
    if len(ordered) <= _THRESHOLDS_PER_FEATURE:
        return ordered
    indices = np.linspace(0, len(ordered) - 1, _THRESHOLDS_PER_FEATURE).round().astype(int)
    return [ordered[index] for index in indices]
