"""Certifies, at load, that a runtime gives the scores of the library that trained the model (SEMANTICS 6.3).

The scores are compared on reference rows, whose scores by the library are in the model's package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.port import Matrix, Runtime, Scores, check_matrix

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

    def first(self, rows: int) -> Reference:
        """Return a copy of the first rows."""
        return Reference(*(each[:rows].copy() for each in (self.rows, self.margins, self.scores)))

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


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The result of a runtime's certification at load.

    Args:
        runtime_id: the runtime; also in every row of the prediction log.
        rows: number of reference rows.
        bit_equal: whether all margins have the same bits. Only then may runtimes alternate between batches.
        largest_difference: largest difference of margins; 0 if bit-equal, inf if a margin is not a number.
    """

    runtime_id: str
    rows: int
    bit_equal: bool
    largest_difference: float


def certify(runtime: Runtime, reference: Reference, *, tolerance: float = 0.0) -> Certificate:
    """Compare the runtime's results with the library's, in one batch and row by row.

    Args:
        runtime: the runtime, freshly loaded.
        reference: the package's rows, with the margins and scores at training.
        tolerance: largest margin difference that the spec accepts; 0: bit-equal only.

    Raises:
        PackageError: margins differ by more than the tolerance (0: in any bit), or margins are equal and
            scores differ by more than one rounding of the link function.
    """
    _check_size(runtime, runtime.n_features, "features", reference.rows.shape[1])
    _check_size(runtime, runtime.n_outputs, "outputs", reference.n_outputs)
    differs, largest = _compare_margins(runtime, reference)
    if differs and not (tolerance > 0.0 and largest <= tolerance):
        raise _refusal(runtime, f"differs from the library on {differs} of {len(reference.rows)} rows", largest)
    if not differs:
        _check_scores(runtime, reference)
    return Certificate(
        runtime_id=runtime.runtime_id,
        rows=len(reference.rows),
        bit_equal=differs == 0,
        largest_difference=largest,
    )


def same_bits(left: Scores, right: Scores) -> NDArray[np.bool_]:
    """Return which float64 values have equal bits: -0.0 differs from 0.0, a NaN is equal to itself.

    >>> same_bits(np.array([0.0, np.nan]), np.array([-0.0, np.nan])).tolist()
    [False, True]
    """
    equal: NDArray[np.bool_] = left.view(np.int64) == right.view(np.int64)
    return equal


def _check_size(runtime: Runtime, expected: int, name: str, actual: int) -> None:
    if actual != expected:
        raise PackageError(
            f"runtime {runtime.runtime_id!r}",
            f"has another number of {name} ({expected}) than the reference rows",
            value=actual,
            fix="train and package the model again",
        )


def _compare_margins(runtime: Runtime, reference: Reference) -> tuple[int, float]:
    """Return the number of rows that differ, in a batch or alone, and the largest difference."""
    expected = reference.margins
    batched = runtime.margin(reference.rows)
    # A library scores a single row by another path than a batch; both must give the bits of the reference.
    alone = np.array([runtime.margin(row[None, :])[0] for row in reference.rows])
    equal = _rows_equal(same_bits(batched, expected) & same_bits(alone, expected))
    gaps = np.maximum(_gap(batched, expected), _gap(alone, expected))
    return int((~equal).sum()), float(gaps.max())


def _rows_equal(equal: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask of rows that are equal in every output."""
    return np.asarray(equal.reshape(len(equal), -1).all(axis=1), dtype=np.bool_)


def _gap(left: Scores, right: Scores) -> Scores:
    """Return absolute differences; equal bits are 0, a difference with NaN is infinite."""
    with np.errstate(invalid="ignore"):
        gap = np.abs(left - right)
    gap[np.isnan(gap)] = np.inf
    # Last: two equal infinities have a difference of NaN.
    gap[same_bits(left, right)] = 0.0
    return gap


def _check_scores(runtime: Runtime, reference: Reference) -> None:
    """Reject a link function that is off by more than one ulp, the largest difference between platforms."""
    scores, expected = runtime.score(reference.rows), reference.scores
    as_float32 = expected.astype(np.float32)
    # Scores of XGBoost are float32 numbers, of which one unit in the last place is many in float64.
    is_float32 = np.array_equal(as_float32.astype(np.float64), expected, equal_nan=True)
    ulp = np.spacing(np.abs(as_float32)).astype(np.float64) if is_float32 else np.spacing(np.abs(expected))
    is_different = ~_rows_equal(_gap(scores, expected) <= ulp)
    if is_different.any():
        problem = f"has equal margins but different scores on {int(is_different.sum())} of {len(expected)} rows"
        raise _refusal(runtime, problem, float(_gap(scores, expected).max()))


def _refusal(runtime: Runtime, problem: str, largest: float) -> PackageError:
    return PackageError(
        f"runtime {runtime.runtime_id!r}",
        f"{problem}, by up to {largest:.17g}",
        fix="install the library version that trained the model, or allow a tolerance in its ModelSpec",
    )
