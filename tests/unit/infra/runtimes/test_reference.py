"""Reference rows hold every value on which runtimes are known to differ."""

from __future__ import annotations

import math

import numpy as np
import pytest

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.certification import Reference, neighbours, reference_rows

THRESHOLDS = [(0, 0.1), (0, 0.7), (2, 1e-40), (2, 3.0), (2, 1.0 + 2**-40)]


def test_rows_are_a_function_of_their_arguments() -> None:
    first, again, other = (reference_rows(THRESHOLDS, 3, seed) for seed in (7, 7, 8))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    assert first.flags.c_contiguous
    assert first.dtype == np.float64


@pytest.mark.parametrize(("feature", "threshold"), THRESHOLDS)
def test_every_threshold_has_rows_on_below_and_above(feature: int, threshold: float) -> None:
    column = reference_rows(THRESHOLDS, 3, 7)[:, feature]
    for value in (
        threshold,
        math.nextafter(threshold, -math.inf),
        math.nextafter(threshold, math.inf),
        float(np.float32(threshold)),
    ):
        assert value in column


@pytest.mark.parametrize("value", [np.inf, -np.inf, 5e-324, -5e-324, 1.7e308])
def test_special_values_fill_a_row_and_are_strewn_in(value: float) -> None:
    hits = reference_rows(THRESHOLDS, 3, 7) == value
    assert hits.all(axis=1).any()
    assert (hits.any(axis=1) & ~hits.all(axis=1)).any()


def test_there_is_an_all_null_row_and_both_zeros() -> None:
    rows = reference_rows(THRESHOLDS, 3, 7)
    zeros = rows[(rows == 0).all(axis=1)]
    assert np.isnan(rows).all(axis=1).any()
    assert set(np.signbit(zeros).all(axis=1).tolist()) == {True, False}


def test_a_model_without_splits_has_rows_too() -> None:
    assert reference_rows([], 2, 7).shape == (718, 2)


def test_steps_beside_a_threshold_are_ordered() -> None:
    on, below, above, narrow, narrow_below, narrow_above = neighbours(np.array([0.1])).tolist()
    assert on == 0.1
    assert below < on < above
    assert narrow_below < on < narrow_above
    assert narrow == float(np.float32(0.1)) != on


def test_parts_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(PackageError, match="margins"):
        Reference(np.zeros((2, 3)), np.zeros(3), np.zeros(2))
    with pytest.raises(PackageError, match="scores"):
        Reference(np.zeros((2, 3)), np.zeros(2), np.zeros(2, dtype=np.float32))
    with pytest.raises(PackageError, match="scores"):
        Reference(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros((2, 3)))
    with pytest.raises(PackageError, match="margins"):
        Reference(np.zeros((2, 3)), np.zeros((2, 4, 1)), np.zeros((2, 4, 1)))
    with pytest.raises(PackageError, match="do not fit"):
        Reference(np.zeros((0, 3)), np.zeros(0), np.zeros(0))


def test_a_reference_counts_its_outputs() -> None:
    assert Reference(np.zeros((2, 3)), np.zeros(2), np.zeros(2)).n_outputs == 1
    assert Reference(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros((2, 4))).n_outputs == 4
