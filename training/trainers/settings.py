"""What trainers read out of a ModelSpec."""

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
_LARGEST_GAIN = 30
_EARLY_STOPPING = "early_stopping_rounds"
_ELSEWHERE = {
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


def refuse_task(spec: ModelSpec, possible: Sequence[Task]) -> None:
    """Refuse a task that a library cannot do.

    Raises:
        DefinitionError: the spec's task is not among the possible ones.
    """
    if spec.task not in possible:
        raise DefinitionError(
            f"model {spec.name!r} task",
            f"cannot be trained by {spec.algorithm}",
            value=spec.task,
            fix=f"use one of {', '.join(possible)}, or another algorithm",
        )


def check_labels(rows: TrainingSet, spec: ModelSpec) -> None:
    """Refuse labels that the task cannot have.

    Raises:
        SourceError: binary labels other than 0 and 1, or of one class only; multiclass labels that are not
            numbers of classes, or of one class only; ranking labels that are not whole numbers of 0 to 30.
    """
    found = np.unique(rows.labels)
    if spec.task == "binary" and not np.array_equal(found, [0.0, 1.0]):
        raise _wrong_labels(spec, "are not both 0 and 1", found)
    if spec.task == "multiclass" and not (_whole(found, len(spec.classes) - 1) and found.size > 1):
        raise _wrong_labels(spec, f"are not several of 0 to {len(spec.classes) - 1}", found)
    if spec.task == "ranking" and not _whole(found, _LARGEST_GAIN):
        raise _wrong_labels(spec, f"are not whole numbers of 0 to {_LARGEST_GAIN}", found)


def refuse_empty_features(spec: ModelSpec, rows: TrainingSet) -> None:
    """Refuse rows without a single feature value, which would train a constant.

    Raises:
        SourceError: every feature of every row is null.
    """
    if np.isnan(rows.matrix).all():
        raise SourceError(
            f"training rows of model {spec.name!r}",
            "have no feature value at all",
            value=f"{len(rows.labels)} rows",
            fix="materialise the views over the training period, and check keys and ttl",
        )


def _whole(values: Vector, largest: int) -> bool:
    return bool(((values == np.floor(values)) & (values >= 0) & (values <= largest)).all())


def _wrong_labels(spec: ModelSpec, problem: str, found: Vector) -> SourceError:
    return SourceError(f"labels of model {spec.name!r}", problem, value=str(found[:5].tolist()), fix="check its label")


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
