"""The port of trainers, with their input and output, and the checks of settings that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.spec import Algorithm, ModelSpec, Task
from skewless.infra.models.runtimes.port import Matrix, Scores, Vector
from skewless.training.stored_matrix import AnyMatrix, StoredMatrix, read_batches, select_rows

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
    "num_trees": "rounds",
    "iterations": "rounds",
    "n_iter": "rounds",
    "max_iter": "rounds",
    "seed": "seed",
    "random_state": "seed",
    "random_seed": "seed",
    "scale_pos_weight": "class_weight",
    "is_unbalance": "class_weight",
    "num_class": "classes",
    "classes_count": "classes",
    "class_names": "classes",
    "class_weight": "class_weight",
    "class_weights": "class_weight",
    "auto_class_weights": "class_weight",
}


_MatrixT_co = TypeVar("_MatrixT_co", bound=AnyMatrix, covariant=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledRows(Generic[_MatrixT_co]):
    """Rows for training or validation; their features are in memory, or in the storage.

    Args:
        matrix: ``(n, n_features)`` float64, NaN is missing; in memory C-contiguous.
        labels: ``(n,)`` float64, finite; 0 or 1 for a binary task, 0, 1, ... for a multiclass task, the relevance
            of a row (an integer of 0 or more) for ranking.
        feature_names: names of the columns, in order.
        categorical: indices of columns of category codes.
        weights: ``(n,)`` float64 sample weights of 0 or more; None: all 1.
        groups: ``(n,)`` int64, equal for rows of one query, for ranking.
    """

    matrix: _MatrixT_co
    labels: Vector
    feature_names: tuple[str, ...]
    categorical: tuple[int, ...] = ()
    weights: Vector | None = None
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        rows, shape = self.matrix.shape[0], self.matrix.shape
        is_float64 = isinstance(self.matrix, StoredMatrix) or self.matrix.dtype == np.float64
        if not is_float64 or rows == 0 or shape[1:] != (len(self.feature_names),):
            actual = f"{shape} for {len(self.feature_names)} names"
            raise SourceError("training matrix", "does not fit its names", value=actual, fix="give float64 rows")
        if self.labels.shape != (rows,) or not np.isfinite(self.labels).all():
            raise SourceError("training labels", "are missing or not finite", fix="skip rows without a label")
        if self.weights is not None and (self.weights.shape != (rows,) or not (self.weights >= 0).all()):
            raise SourceError("training weights", "are missing or below 0", fix="give one number of 0 or more per row")
        if self.weights is not None and not self.weights.any():
            raise SourceError("training weights", "are all 0", fix="give some rows a weight above 0")
        if self.groups is not None and self.groups.shape != (rows,):
            raise SourceError("training groups", "do not fit the rows", fix="give one number per row")

    def order(self, rows: NDArray[np.int64]) -> Self:
        """Return the rows in another order."""
        weights, groups = self.weights, self.groups
        return replace(
            self,
            matrix=cast("_MatrixT_co", select_rows(self.matrix, rows)),
            labels=self.labels[rows],
            weights=None if weights is None else weights[rows],
            groups=None if groups is None else groups[rows],
        )


TrainingSet = LabelledRows[Matrix]
StoredTrainingSet = LabelledRows[StoredMatrix]
AnyTrainingSet = LabelledRows[AnyMatrix]


@dataclass(frozen=True, kw_only=True, eq=False)
class Queries:
    """Rows in the order of their groups; within a group, in the original order.

    Args:
        rows: the rows, sorted.
        sizes: number of rows per group, in the same order.
    """

    rows: AnyTrainingSet
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, rows: AnyTrainingSet) -> Queries:
        """Sort rows by group.

        Raises:
            SourceError: the rows have no groups.
        """
        if rows.groups is None:
            raise SourceError("training groups", "are missing", fix="give one number per row")
        # Stable, because the order of rows changes the bits of a model, and a Trainer must be deterministic.
        ordered = rows.order(np.argsort(rows.groups, kind="stable"))
        return cls(rows=ordered, sizes=np.unique(rows.groups, return_counts=True)[1].astype(np.int64))

    def weights(self) -> Vector | None:
        """Return one weight per group.

        Raises:
            SourceError: rows of one group have different weights.
        """
        if self.rows.weights is None:
            return None
        starts = np.cumsum(self.sizes) - self.sizes
        group_weights: Vector = self.rows.weights[starts]
        if not np.array_equal(np.repeat(group_weights, self.sizes), self.rows.weights):
            raise SourceError(
                "training weights",
                "differ within a group, but the library has one weight per group",
                fix="give all rows of a group one weight, or use lightgbm",
            )
        return group_weights


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """A trained model in its library's own format, with the library's own scoring functions.

    Args:
        algorithm: the library.
        library: the library and its version, for example ``lightgbm 4.7.0``.
        model: bytes of the model file, in a format without code (no pickle).
        file_name: name of the model file.
        rounds: trees in the model; with early stopping, up to the best round.
        raw_margin: returns the library's raw margins, ``(n, n_features)`` to ``(n,)`` or ``(n, k)`` float64.
        score: returns the library's predictions.
        thresholds: (feature index, split threshold or category), unique, sorted, limited per feature.
        importance: total gain per feature name, in the order of the columns.
        splits: number of splits per feature, in the same order; empty if the library does not report it.
        learning: metric of the library -> its value on the validation rows after each round; empty without
            validation rows.
    """

    algorithm: Algorithm
    library: str
    model: bytes
    file_name: str
    rounds: int
    raw_margin: Callable[[Matrix], Scores]
    score: Callable[[Matrix], Scores]
    thresholds: tuple[tuple[int, float], ...]
    importance: Mapping[str, float]
    splits: Mapping[str, int] = field(default_factory=dict)
    learning: Mapping[str, list[float]] = field(default_factory=dict)


class Trainer(Protocol):
    """A training library.

    It is deterministic: the same rows and spec give the same bytes. It writes nothing to stdout or stderr. The model
    file has no feature names, because the libraries reject some characters; features are in the order of the plan.
    """

    def train(self, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None = None) -> TrainedModel:
        """Train ``spec.rounds`` rounds, or fewer if ``early_stopping_rounds`` is among its parameters.

        Raises:
            SourceError: labels do not fit the task, or all rows are of one class.
            DefinitionError: a parameter has its own field in the spec, the library rejects it, or the library does
                not support the task.
        """
        ...


class StreamTrainer(Protocol):
    """A Trainer that also reads a training set from the storage, some rows at a time."""

    def train(self, rows: AnyTrainingSet, spec: ModelSpec, validation: AnyTrainingSet | None = None) -> TrainedModel:
        """Train as ``Trainer.train``; training and validation rows are both in memory, or both in the storage."""
        ...


@dataclass(frozen=True)
class Parameters:
    """The user's parameters, and the rounds without progress after which training stops (None: never)."""

    values: dict[str, Any]
    early_stopping: int | None


def split_parameters(spec: ModelSpec, validation: AnyTrainingSet | None) -> Parameters:
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


def row_weights(rows: AnyTrainingSet, spec: ModelSpec) -> Vector | None:
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


def check_labels(rows: AnyTrainingSet, spec: ModelSpec) -> None:
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


def check_features_present(spec: ModelSpec, rows: AnyTrainingSet) -> None:
    """Check that the rows have a feature value; without one, training would give a constant.

    Raises:
        SourceError: all features of all rows are null.
    """
    if all(np.isnan(batch).all() for batch in read_batches(rows.matrix)):
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
