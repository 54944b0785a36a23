"""A runtime is certified on bits, alone and batched, or within the tolerance of the spec."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.certification import Reference, certify
from skewless.infra.models.runtimes.port import Matrix, Runtime, Scores, Vector

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
        self,
        margin: Callable[[Matrix], Scores] = first_column,
        score: Callable[[Matrix], Scores] = squashed,
        n_outputs: int = 1,
    ) -> None:
        self._margin = margin
        self._score = score
        self.n_outputs = n_outputs

    def margin(self, matrix: Matrix) -> Scores:
        return self._margin(matrix)

    def score(self, matrix: Matrix) -> Scores:
        return self._score(matrix)

    def contributions(self, matrix: Matrix) -> Scores:
        return np.zeros((len(matrix), 3))

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
    with pytest.raises(PackageError, match="different scores"):
        certify(FakeRuntime(score=lambda matrix: squashed(matrix) * (1 - 1e-12)), REFERENCE)


def test_another_width_is_refused() -> None:
    narrow = Reference(np.zeros((2, 1)), np.zeros(2), np.zeros(2))
    with pytest.raises(PackageError, match="another number of features"):
        certify(FakeRuntime(), narrow)


def two_columns(matrix: Matrix) -> Scores:
    return np.stack([first_column(matrix), first_column(matrix) + 1], axis=1)


TWO = Reference(ROWS, two_columns(ROWS), two_columns(ROWS))


def test_several_outputs_are_certified_row_by_row_and_together() -> None:
    certificate = certify(FakeRuntime(two_columns, two_columns, 2), TWO)
    assert (certificate.rows, certificate.bit_equal) == (3, True)

    def one_off(matrix: Matrix) -> Scores:
        found = two_columns(matrix)
        found[matrix[:, 0] == 2.0, 1] += 0.5
        return found

    with pytest.raises(PackageError, match=r"differs from the library on 1 of 3 rows, by up to 0\.5"):
        certify(FakeRuntime(one_off, two_columns, 2), TWO)
    with pytest.raises(PackageError, match="different scores on 1 of 3 rows"):
        certify(FakeRuntime(two_columns, one_off, 2), TWO)


def test_another_number_of_outputs_is_refused() -> None:
    with pytest.raises(PackageError, match=r"another number of outputs .1.*got 2"):
        certify(FakeRuntime(), TWO)
