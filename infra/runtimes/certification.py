"""Certifies, at load, that a runtime gives the scores of the library that trained the model (SEMANTICS 6.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError
from skewless.infra.runtimes.port import Matrix, Runtime, Scores
from skewless.infra.runtimes.reference import Reference


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
    alone = _margins_row_by_row(runtime, reference.rows)
    equal = _rows_equal(same_bits(batched, expected) & same_bits(alone, expected))
    gaps = np.maximum(_gap(batched, expected), _gap(alone, expected))
    return int((~equal).sum()), float(gaps.max())


def _rows_equal(equal: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask of rows that are equal in every output."""
    return np.asarray(equal.reshape(len(equal), -1).all(axis=1), dtype=np.bool_)


def _margins_row_by_row(runtime: Runtime, rows: Matrix) -> Scores:
    return np.array([runtime.margin(rows[index : index + 1])[0] for index in range(rows.shape[0])])


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
