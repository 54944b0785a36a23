"""Queries of a ranking model: rows of one group side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import SourceError
from skewless.infra.runtimes.port import Vector
from skewless.training.trainers.port import TrainingSet


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
