"""Reference rows, on which a runtime must give the results of the library that trained the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError
from skewless.infra.runtimes.port import Matrix, Scores, check_matrix

_RANDOM_ROWS = 192
_EDGE_ROWS = 256
_EDGE_SHARE = 0.5
_HUGE = 1e100
_MATRIX_DIMENSIONS = 2
_DENORMAL = 5e-324
# LightGBM treats |x| <= 1e-35 (as float32) as zero, so values on both sides of that bound are included.
_SPECIAL = (0.0, -0.0, np.inf, -np.inf, _DENORMAL, -_DENORMAL, 1e-35, -1e-35, 1.1e-35, 1e-30, 1.7e308, -1.7e308, 3.5e38)


@dataclass(frozen=True, eq=False)
class Reference:
    """Reference rows with the results of the library that trained the model.

    Args:
        rows: ``(n, n_features)`` float64, NaN where missing.
        margins: ``(n,)`` float64 raw margins; of k outputs ``(n, k)``.
        scores: float64 predictions of the same shape.
    """

    rows: Matrix
    margins: Scores
    scores: Scores

    def __post_init__(self) -> None:
        """Check that the parts fit together and are not empty."""
        rows = check_matrix(self.rows, self.rows.shape[-1])
        for name, values in (("margins", self.margins), ("scores", self.scores)):
            fits = (
                values.shape[:1] == (rows,) and values.ndim <= _MATRIX_DIMENSIONS and values.shape == self.margins.shape
            )
            if rows == 0 or not fits or values.dtype != np.float64:
                actual = f"{values.dtype} {values.shape} for {rows} rows"
                raise PackageError(
                    f"reference {name}", "do not fit the rows", value=actual, fix="package the model again"
                )

    @property
    def n_outputs(self) -> int:
        """Return the numbers per row."""
        return 1 if self.margins.ndim == 1 else self.margins.shape[1]


def reference_rows(thresholds: Sequence[tuple[int, float]], n_features: int, seed: int) -> Matrix:
    """Return rows that reveal a cast, another comparison or another null rule in a runtime.

    They are: one row per special value (all null, zeros, infinities, denormals, beyond float32); random
    rows with some nulls and special values; rows whose features are all on a split threshold or next to it;
    and such rows with half of the features random, to reach other paths through the trees.

    Args:
        thresholds: (feature, threshold) pairs of the trained model, in any order.
        n_features: width of the matrix.
        seed: seed of the random values; the same arguments give the same rows.

    >>> reference_rows([(0, 0.5)], 2, seed=7).shape
    (718, 2)
    """
    rng = np.random.default_rng(seed)
    by_feature = [np.array([value for at, value in thresholds if at == index]) for index in range(n_features)]
    special = np.repeat(np.array([np.nan, *_SPECIAL])[:, None], n_features, axis=1)
    random_rows = _random_rows(by_feature, rng, _RANDOM_ROWS)
    edges = _edge_rows(by_feature, rng, _EDGE_ROWS)
    mixed = np.where(rng.random(edges.shape) < _EDGE_SHARE, edges, _random_rows(by_feature, rng, _EDGE_ROWS))
    return np.ascontiguousarray(np.concatenate([special, random_rows, edges, mixed]))


def neighbours(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the thresholds and the next values below and above them, in float64 and in float32 steps."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = threshold.astype(np.float32)
        steps = [
            threshold,
            np.nextafter(threshold, -np.inf),
            np.nextafter(threshold, np.inf),
            narrow.astype(np.float64),
            np.nextafter(narrow, np.float32(-np.inf)).astype(np.float64),
            np.nextafter(narrow, np.float32(np.inf)).astype(np.float64),
        ]
    return np.concatenate(steps)


def _edge_rows(by_feature: list[NDArray[np.float64]], rng: np.random.Generator, count: int) -> Matrix:
    """Return rows of edge values; all values of a feature appear if there are at most ``count``."""
    rows = np.full((count, len(by_feature)), np.nan)
    for index, thresholds in enumerate(by_feature):
        pool = rng.permutation(np.unique(neighbours(thresholds))) if thresholds.size else np.array(_SPECIAL)
        rows[:, index] = np.resize(pool, count)
    return rows


def _random_rows(by_feature: list[NDArray[np.float64]], rng: np.random.Generator, count: int) -> Matrix:
    """Return values around each feature's thresholds, one in eight null, one in sixteen special."""
    rows = np.empty((count, len(by_feature)))
    for index, thresholds in enumerate(by_feature):
        finite = thresholds[np.abs(thresholds) < _HUGE]
        low, high = (finite.min(), finite.max()) if finite.size else (-1.0, 1.0)
        margin = (high - low) / 4 + 1.0
        rows[:, index] = rng.uniform(low - margin, high + margin, count)
    kind = rng.random(rows.shape)
    rows[kind < 1 / 8] = np.nan
    is_special = kind > 15 / 16
    rows[is_special] = rng.choice(np.array(_SPECIAL), int(is_special.sum()))
    return rows
