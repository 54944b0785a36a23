"""The port of trainers, with their input and output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import SourceError
from skewless.contract.spec import Algorithm, ModelSpec
from skewless.infra.runtimes.port import Matrix, Scores, Vector


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSet:
    """Rows for training or validation.

    Args:
        matrix: ``(n, n_features)`` float64, C-contiguous, NaN is missing.
        labels: ``(n,)`` float64, finite; 0 or 1 for a binary task, 0, 1, ... for a multiclass task, the relevance
            of a row (an integer of 0 or more) for ranking.
        feature_names: names of the columns, in order.
        categorical: indices of columns of category codes.
        weights: ``(n,)`` float64 sample weights of 0 or more; None: all 1.
        groups: ``(n,)`` int64, equal for rows of one query, for ranking.
    """

    matrix: Matrix
    labels: Vector
    feature_names: tuple[str, ...]
    categorical: tuple[int, ...] = ()
    weights: Vector | None = None
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        rows = self.matrix.shape[0]
        if self.matrix.dtype != np.float64 or rows == 0 or self.matrix.shape[1:] != (len(self.feature_names),):
            actual = f"{self.matrix.dtype} {self.matrix.shape} for {len(self.feature_names)} names"
            raise SourceError("training matrix", "does not fit its names", value=actual, fix="give float64 rows")
        if self.labels.shape != (rows,) or not np.isfinite(self.labels).all():
            raise SourceError("training labels", "are missing or not finite", fix="skip rows without a label")
        if self.weights is not None and (self.weights.shape != (rows,) or not (self.weights >= 0).all()):
            raise SourceError("training weights", "are missing or below 0", fix="give one number of 0 or more per row")
        if self.weights is not None and not self.weights.any():
            raise SourceError("training weights", "are all 0", fix="give some rows a weight above 0")
        if self.groups is not None and self.groups.shape != (rows,):
            raise SourceError("training groups", "do not fit the rows", fix="give one number per row")


@dataclass(frozen=True, kw_only=True, eq=False)
class Queries:
    """Rows in the order of their groups; within a group, in the original order.

    Args:
        rows: the rows, sorted.
        sizes: number of rows per group, in the same order.
    """

    rows: TrainingSet
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, rows: TrainingSet) -> Queries:
        """Sort rows by group.

        Raises:
            SourceError: the rows have no groups.
        """
        if rows.groups is None:
            raise SourceError("training groups", "are missing", fix="give one number per row")
        # Stable, because the order of rows changes the bits of a model, and a Trainer must be deterministic.
        order = np.argsort(rows.groups, kind="stable")
        groups = rows.groups[order]
        ordered = replace(
            rows,
            matrix=np.ascontiguousarray(rows.matrix[order]),
            labels=rows.labels[order],
            weights=None if rows.weights is None else rows.weights[order],
            groups=groups,
        )
        return cls(rows=ordered, sizes=np.unique(groups, return_counts=True)[1].astype(np.int64))

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
                "differ within a group, but XGBoost has one weight per group",
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
