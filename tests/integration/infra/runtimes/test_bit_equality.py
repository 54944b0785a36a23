"""SEMANTICS 6.3: a runtime gives the bits of the library that trained the model, on any row, in any batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.models.runtimes.certification import Reference, certify, reference_rows
from skewless.infra.models.runtimes.port import Matrix, Runtime, Scores, find_leaves
from tests.worlds.model_cases import ModelCase

FEATURES = 8
CATEGORY = 7


def same(left: Scores, right: Scores) -> bool:
    plain = left.dtype == right.dtype == np.float64 and left.flags.c_contiguous
    return plain and np.array_equal(left.view(np.int64), np.ascontiguousarray(right).view(np.int64))


def edge_rows(case: ModelCase) -> Matrix:
    """Return one row per threshold and step beside it; all other features random."""
    rng = np.random.default_rng(5)
    thresholds = [(at, value) for at, value in case.thresholds if abs(value) < 1e100][:400]
    rows = rng.normal(size=(3 * len(thresholds), FEATURES))
    for index, (feature, value) in enumerate(thresholds):
        rows[3 * index : 3 * index + 3, feature] = [value, np.nextafter(value, -np.inf), np.nextafter(value, np.inf)]
    return rows


def special_rows() -> Matrix:
    rng = np.random.default_rng(6)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e300, 1e-35, -1.0, 2.0**31, 1e19])
    return rng.choice(special, (300, FEATURES))


def unseen_categories() -> Matrix:
    """Return codes that no training row had, and numbers that are no codes."""
    rng = np.random.default_rng(8)
    odd = [40, 41, 63, 64, 65, 1000, 2**24 - 1, 2**24, 2**31 + 1, -1, -0.5, 0.5, 2.999999999, 3, 31, 32, 33, np.nan]
    rows = rng.normal(size=(400, FEATURES))
    rows[:, CATEGORY] = rng.choice(np.array(odd, dtype=float), 400)
    return rows


@pytest.mark.parametrize("count", [1, 2, 8, 9, 100])
def test_random_rows_have_the_library_s_bits(case: ModelCase, count: int) -> None:
    rows = np.random.default_rng(count).normal(scale=3, size=(count, FEATURES))
    assert same(case.runtime.margin(rows), case.raw(rows))
    assert same(case.runtime.score(rows), case.score(rows))


def test_rows_on_and_beside_thresholds_have_the_library_s_bits(case: ModelCase) -> None:
    rows = edge_rows(case)
    assert rows.shape[0] > 300
    assert same(case.runtime.margin(rows), case.raw(rows))
    assert same(case.runtime.score(rows), case.score(rows))


def test_special_values_have_the_library_s_bits(case: ModelCase) -> None:
    rows = special_rows()
    assert same(case.runtime.margin(rows), case.raw(rows))
    assert same(case.runtime.score(rows), case.score(rows))


def test_unseen_categories_have_the_library_s_bits(case: ModelCase) -> None:
    rows = unseen_categories()
    assert same(case.runtime.margin(rows), case.raw(rows))
    assert same(case.runtime.score(rows), case.score(rows))


def _narrow(value: float) -> float:
    with np.errstate(over="ignore"):  # an open end of a tree is the greatest float64
        return float(np.float32(value))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_row_has_the_library_s_bits(case: ModelCase, data: st.DataObject) -> None:
    """Features are any float64, or a threshold of the model and its neighbours."""
    edges = sorted({value for _, value in case.thresholds})
    near = st.sampled_from(edges).flatmap(
        lambda at: st.sampled_from([at, np.nextafter(at, -np.inf), np.nextafter(at, np.inf), _narrow(at)])
    )
    row = st.lists(st.floats() | near, min_size=FEATURES, max_size=FEATURES)
    rows = np.array(data.draw(st.lists(row, min_size=1, max_size=12)), dtype=np.float64)
    assert same(case.runtime.margin(rows), case.raw(rows))
    assert same(case.runtime.score(rows), case.score(rows))


def test_a_row_alone_equals_the_row_in_a_batch(case: ModelCase) -> None:
    rows = np.concatenate([special_rows(), edge_rows(case)[:300]])
    alone = np.array([case.runtime.margin(rows[index : index + 1])[0] for index in range(len(rows))])
    scored = np.array([case.runtime.score(rows[index : index + 1])[0] for index in range(len(rows))])
    assert same(alone, case.raw(rows))
    assert same(scored, case.score(rows))


def test_no_rows_give_no_scores(case: ModelCase) -> None:
    rows = np.empty((0, FEATURES))
    outputs = case.raw(np.zeros((1, FEATURES))).shape[1:]
    assert case.runtime.n_outputs == (outputs or (1,))[0]
    assert case.runtime.margin(rows).shape == case.runtime.score(rows).shape == (0, *outputs)
    assert case.runtime.contributions(rows).shape == (0, *outputs, FEATURES + 1)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_contributions_have_the_library_s_bits_and_sum_up_to_the_margin(case: ModelCase, count: int) -> None:
    rows = np.concatenate([edge_rows(case)[:count], unseen_categories()[:count]])
    rows[np.random.default_rng(count).random(rows.shape) < 0.2] = np.nan
    found = case.runtime.contributions(rows)
    margins = case.raw(rows)
    assert same(found, case.contributions(rows).reshape(found.shape))
    assert found.shape == (*margins.shape, FEATURES + 1)
    assert np.allclose(found.sum(axis=-1), margins, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 200])
def test_leaves_are_the_library_s(case: ModelCase, count: int) -> None:
    rows = np.concatenate([edge_rows(case)[-count:], unseen_categories()[:count]])
    rows[np.random.default_rng(count).random(rows.shape) < 0.2] = np.nan
    if case.leaves is None:
        with pytest.raises(RequestError, match="has no leaf indices"):
            find_leaves(case.runtime, rows)
        return
    found = find_leaves(case.runtime, rows)
    assert found.dtype == np.int32
    assert (found == case.leaves(rows)).all()
    assert find_leaves(case.runtime, rows[:0]).shape == (0, found.shape[1])


def test_leaves_of_a_row_do_not_depend_on_the_others(case: ModelCase) -> None:
    if case.leaves is None:
        return
    rows = special_rows()
    together = find_leaves(case.runtime, rows)
    assert (together == np.concatenate([find_leaves(case.runtime, row[None]) for row in rows])).all()


def test_contributions_of_infinite_values_sum_up_to_the_margin_too(case: ModelCase) -> None:
    rows = special_rows()[:100]
    found = case.runtime.contributions(rows)
    assert np.allclose(found.sum(axis=-1), case.raw(rows), rtol=1e-4, atol=1e-4)


def test_contributions_beside_scores_from_several_threads(case: ModelCase) -> None:
    rows = np.random.default_rng(4).normal(size=(8, FEATURES))
    scores, parts = case.raw(rows), case.runtime.contributions(rows)

    def work(index: int) -> bool:
        if index % 3 == 0:
            return same(case.runtime.contributions(rows), parts)
        return same(case.runtime.margin(rows[: index % 8 + 1]), scores[: index % 8 + 1])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(60)))


def test_the_matrix_is_read_and_not_changed(case: ModelCase) -> None:
    rows = special_rows()
    before = rows.tobytes()
    rows.flags.writeable = False
    case.runtime.score(rows)
    case.runtime.score(rows[:1])
    assert rows.tobytes() == before


def test_results_belong_to_the_caller(case: ModelCase) -> None:
    rows = edge_rows(case)[:50]
    first = case.runtime.margin(rows)
    kept = first.copy()
    case.runtime.margin(rows[::-1].copy())
    assert same(first, kept)


def test_threads_do_not_disturb_each_other(case: ModelCase) -> None:
    rows = np.random.default_rng(3).normal(size=(64, FEATURES))
    expected = case.raw(rows)

    def work(index: int) -> bool:
        if index % 2:
            return same(case.runtime.margin(rows), expected)
        at = index % 64
        return same(case.runtime.margin(rows[at : at + 1]), expected[at : at + 1])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(200)))


def test_fortran_order_and_float32_are_refused(case: ModelCase) -> None:
    rows = edge_rows(case)
    narrow: Any = rows.astype(np.float32)
    for wrong in (np.asfortranarray(rows), narrow, rows[:, :-1].copy()):
        with pytest.raises(RequestError):
            case.runtime.score(wrong)


def test_the_runtime_is_certified_on_the_library_s_reference(case: ModelCase) -> None:
    rows = reference_rows(case.thresholds, FEATURES, seed=7)
    certificate = certify(case.runtime, Reference(rows, case.raw(rows), case.score(rows)))
    assert certificate.bit_equal
    assert certificate.rows == len(rows)


class CastingRuntime:
    """A runtime that computes in float32, as several do."""

    def __init__(self, inner: Runtime) -> None:
        self._inner = inner
        self.runtime_id = "casting-1"
        self.n_features = inner.n_features
        self.n_outputs = inner.n_outputs

    def margin(self, matrix: Matrix) -> Scores:
        return self._inner.margin(narrowed(matrix))

    def score(self, matrix: Matrix) -> Scores:
        return self._inner.score(narrowed(matrix))

    def contributions(self, matrix: Matrix) -> Scores:
        return self._inner.contributions(narrowed(matrix))

    def close(self) -> None:
        self._inner.close()


def narrowed(matrix: Matrix) -> Matrix:
    with np.errstate(over="ignore"):
        return matrix.astype(np.float32).astype(np.float64)


def test_a_runtime_that_casts_to_float32_is_refused(lightgbm_binary: ModelCase) -> None:
    case = lightgbm_binary
    rows = edge_rows(case)
    moved = np.abs(case.raw(narrowed(rows)) - case.raw(rows))
    assert (moved > 0).sum() > 20
    reference_matrix = reference_rows(case.thresholds, FEATURES, seed=7)
    reference = Reference(reference_matrix, case.raw(reference_matrix), case.score(reference_matrix))
    with pytest.raises(
        PackageError, match=r"casting-1.*differs from the library on \d+ of 718 rows, by up to \d+\.\d+"
    ):
        certify(CastingRuntime(case.runtime), reference)
    assert not certify(CastingRuntime(case.runtime), reference, tolerance=100.0).bit_equal
