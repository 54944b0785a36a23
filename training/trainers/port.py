"""The port of everything that trains a model, and what goes in and comes out."""

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
    """Rows to train or validate on.

    Args:
        matrix: ``(n, n_features)`` float64, C-contiguous, NaN is missing.
        labels: ``(n,)`` float64, finite; 0 or 1 for a binary task, 0, 1, ... for a multiclass task, how much
            a row is worth (whole, 0 or more) for ranking.
        feature_names: names of the columns, in order.
        categorical: indices of columns that hold category codes.
        weights: ``(n,)`` float64 sample weights, at least 0, if any.
        groups: ``(n,)`` int64, equal for rows of one query, for ranking.
    """

    matrix: Matrix
    labels: Vector
    feature_names: tuple[str, ...]
    categorical: tuple[int, ...] = ()
    weights: Vector | None = None
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        rows = self.matrix.shape[0]
        if self.matrix.dtype != np.float64 or rows == 0 or self.matrix.shape[1:] != (len(self.feature_names),):
            found = f"{self.matrix.dtype} {self.matrix.shape} for {len(self.feature_names)} names"
            raise SourceError("training matrix", "is not what its names say", value=found, fix="give float64 rows")
        if self.labels.shape != (rows,) or not np.isfinite(self.labels).all():
            raise SourceError("training labels", "are missing or not finite", fix="leave out rows without a label")
        if self.weights is not None and (self.weights.shape != (rows,) or not (self.weights >= 0).all()):
            raise SourceError("training weights", "are missing or below 0", fix="give one number of 0 or more per row")
        if self.weights is not None and not self.weights.any():
            raise SourceError("training weights", "are all 0", fix="give some rows a weight above 0")
        if self.groups is not None and self.groups.shape != (rows,):
            raise SourceError("training groups", "do not fit the rows", fix="give one number per row")


@dataclass(frozen=True, kw_only=True, eq=False)
class Queries:
    """Rows in the order of their groups, else in the order that they had.

    Args:
        rows: the rows, sorted.
        sizes: rows per group, in that order.
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
        chosen: Vector = self.rows.weights[starts]
        if not np.array_equal(np.repeat(chosen, self.sizes), self.rows.weights):
            raise SourceError(
                "training weights",
                "differ within a group, and XGBoost weighs whole groups",
                fix="give all rows of a group one weight, or use lightgbm",
            )
        return chosen


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """A trained model in its library's own format, with the library's own answers.

    Args:
        algorithm: the library.
        library: the library and its version, for example ``lightgbm 4.7.0``.
        model: bytes of the model file, in a format without code (no pickle).
        file_name: name of the model file.
        rounds: trees in the model: those up to the best round, where early stopping was asked for.
        raw_margin: raw margins by the library itself, ``(n, n_features)`` to ``(n,)`` or ``(n, k)`` float64.
        score: predictions by the library itself.
        thresholds: (feature index, split threshold or category), unique, sorted, capped per feature.
        importance: total gain per feature name, in the order of the columns.
        splits: how many splits each feature has, in that order; none where the library does not tell.
        learning: metric -> its value on the validation rows after each round, as the library names and counts it;
            none without validation rows.
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

    Deterministic: the same rows and spec give the same bytes. Writes nothing to
    stdout or stderr. Feature names never enter the model file (the libraries refuse some characters);
    the order of the plan is what counts.
    """

    def train(self, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None = None) -> TrainedModel:
        """Train ``spec.rounds`` rounds, or fewer if ``early_stopping_rounds`` is among its parameters.

        Raises:
            SourceError: labels that do not fit the task, or rows of one class only.
            DefinitionError: parameters that belong elsewhere in the spec, or that the library refuses, or a
                task that it cannot do.
        """
        ...
