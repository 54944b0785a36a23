"""A runtime is certified on bits, alone and batched, or within the tolerance of the spec."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from infra.runtimes.certification import certify
from infra.runtimes.port import Matrix, Runtime, Vector
from infra.runtimes.reference import Reference
from skewless.errors import PackageError

ROWS = np.array([[0.0, 1.0], [2.0, 3.0], [np.nan, 5.0]])


def first_column(matrix: Matrix) -> Vector:
    return np.ascontiguousarray(matrix[:, 1]) * 10


def squashed(matrix: Matrix) -> Vector:
    return 1 / (1 + np.exp(-first_column(matrix)))


class FakeRuntime:
    """A runtime with any margin and score."""

    runtime_id = "fake-1"
    n_features = 2

    def __init__(
        self, margin: Callable[[Matrix], Vector] = first_column, score: Callable[[Matrix], Vector] = squashed
    ) -> None:
        self._margin = margin
        self._score = score

    def margin(self, matrix: Matrix) -> Vector:
        return self._margin(matrix)

    def score(self, matrix: Matrix) -> Vector:
        return self._score(matrix)

    def close(self) -> None:
        pass


REFERENCE = Reference(ROWS, first_column(ROWS), squashed(ROWS))


def test_equal_bits_are_certified() -> None:
    runtime: Runtime = FakeRuntime()
    certificate = certify(runtime, REFERENCE)
    assert (certificate.runtime_id, certificate.rows) == ("fake-1", 3)
    assert certificate.bit_equal
    assert certificate.largest_difference == 0.0


def test_a_difference_names_runtime_rows_and_size() -> None:
    runtime = FakeRuntime(lambda matrix: first_column(matrix) + np.where(matrix[:, 1] > 2, 0.25, 0.0))
    with pytest.raises(PackageError, match=r"fake-1.*2 of 3 rows, by up to 0\.25"):
        certify(runtime, REFERENCE)


def test_one_ulp_is_a_difference() -> None:
    runtime = FakeRuntime(lambda matrix: np.nextafter(first_column(matrix), np.inf))
    with pytest.raises(PackageError, match="3 of 3 rows"):
        certify(runtime, REFERENCE)


def test_a_tolerance_accepts_and_says_so() -> None:
    runtime = FakeRuntime(lambda matrix: first_column(matrix) + 0.25)
    certificate = certify(runtime, REFERENCE, tolerance=0.25)
    assert not certificate.bit_equal
    assert certificate.largest_difference == 0.25
    with pytest.raises(PackageError, match="by up to 0"):
        certify(runtime, REFERENCE, tolerance=0.2)


def test_negative_zero_is_not_zero() -> None:
    zeros = Reference(ROWS, np.zeros(3), np.zeros(3))
    runtime = FakeRuntime(lambda matrix: np.full(matrix.shape[0], -0.0), lambda matrix: np.zeros(matrix.shape[0]))
    with pytest.raises(PackageError, match="3 of 3"):
        certify(runtime, zeros)
    assert not certify(runtime, zeros, tolerance=1e-300).bit_equal


def test_a_margin_that_is_no_number_passes_no_tolerance() -> None:
    runtime = FakeRuntime(lambda matrix: np.full(matrix.shape[0], np.nan))
    with pytest.raises(PackageError, match="by up to inf"):
        certify(runtime, REFERENCE, tolerance=1e300)


def test_a_row_alone_must_equal_the_row_in_a_batch() -> None:
    runtime = FakeRuntime(lambda matrix: first_column(matrix) + (0.5 if matrix.shape[0] == 1 else 0.0))
    with pytest.raises(PackageError, match="3 of 3 rows"):
        certify(runtime, REFERENCE)


def test_a_link_function_may_be_off_by_one_rounding_only() -> None:
    assert certify(FakeRuntime(score=lambda matrix: np.nextafter(squashed(matrix), 0.0)), REFERENCE).bit_equal
    with pytest.raises(PackageError, match="other scores"):
        certify(FakeRuntime(score=lambda matrix: squashed(matrix) * (1 - 1e-12)), REFERENCE)


def test_another_width_is_refused() -> None:
    narrow = Reference(np.zeros((2, 1)), np.zeros(2), np.zeros(2))
    with pytest.raises(PackageError, match="expects 2 features"):
        certify(FakeRuntime(), narrow)
