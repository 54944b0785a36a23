"""Differences between the scores of two models on the same rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreDifferences:
    """Differences of a shadow's scores from the returned scores, on the same vectors.

    Args:
        rows: number of compared rows.
        total: sum of the differences, shadow minus returned.
        pairs: the latest scores, returned and shadow, float64, shape ``(n, 2)``, finite.

    >>> has_row = ScoreDifferences(rows=3, total=0.3, pairs=np.array([[0.1, 0.2], [0.2, 0.3], [0.3, 0.4]]))
    >>> round(has_row.mean, 3), round(has_row.rank_correlation, 3), has_row.quantiles((0.5,)).round(3).tolist()
    (0.1, 1.0, [0.1])
    """

    rows: int = 0
    total: float = 0.0
    pairs: Floats = field(default_factory=lambda: np.empty((0, 2)))

    @property
    def mean(self) -> float:
        """Return the mean difference over all rows; NaN without rows."""
        return self.total / self.rows if self.rows else float("nan")

    @property
    def rank_correlation(self) -> float:
        """Return Spearman's rank correlation of the latest pairs; NaN where either side is constant."""
        ranks = [_ranks(side) for side in self.pairs.T]
        if any(np.ptp(side) == 0 if side.size else True for side in ranks):
            return float("nan")
        return float(np.asarray(np.corrcoef(ranks))[0, 1])

    def quantiles(self, at: tuple[float, ...]) -> Floats:
        """Return quantiles of the latest differences, shape of ``at``; NaN without pairs."""
        if not len(self.pairs):
            return np.full(len(at), np.nan)
        return np.quantile(self.pairs[:, 1] - self.pairs[:, 0], at)

    def __add__(self, other: ScoreDifferences) -> ScoreDifferences:
        """Return the differences of two servers combined."""
        pairs = np.concatenate([self.pairs, other.pairs])
        return ScoreDifferences(rows=self.rows + other.rows, total=self.total + other.total, pairs=pairs)


def _ranks(values: Floats) -> Floats:
    """Return ranks; equal values have the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[places], dtype=np.float64)
