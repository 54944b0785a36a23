"""Scores that are kept are the bits that the model would give, whatever the vectors hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.scoring import PredictionCache

Values = npt.NDArray[np.float64]


@dataclass
class Package:
    digest: str = "d"


@dataclass
class CachedModel:
    """Its score tells apart every bit of a vector; it remembers what it scored."""

    outputs: int = 1
    package: Package = field(default_factory=Package)
    asked: list[list[bytes]] = field(default_factory=list)

    def score(self, _: ServedModel, matrix: Values) -> Values:
        assert matrix.flags.c_contiguous
        self.asked.append([row.tobytes() for row in matrix])
        return scores_of(matrix, self.outputs)


def scores_of(matrix: Values, outputs: int = 1) -> Values:
    """Return numbers made of the bits of each vector, NaN and -0.0 among them."""
    bits = matrix.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = np.bitwise_xor.reduce(bits, axis=1) if len(matrix) else np.empty(0, np.uint64)
    many = np.stack([mixed + np.uint64(i) for i in range(outputs)], axis=1).view(np.float64)
    return np.ascontiguousarray(many[:, 0] if outputs == 1 else many)


def score(cache: PredictionCache, model: CachedModel, rows: list[list[float]]) -> bytes:
    matrix = np.array(rows, dtype=np.float64).reshape(-1, 2)
    found = cache.score(cast("ServedModel", model), matrix, model.score)
    expected = scores_of(matrix, model.outputs)
    assert found.dtype == np.float64
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()
    return found.tobytes()


@pytest.mark.parametrize("outputs", [1, 3])
def test_only_what_is_new_is_scored(outputs: int) -> None:
    metrics, model = Metrics(), CachedModel(outputs)
    cache = PredictionCache(100, metrics)
    score(cache, model, [[1, 2], [3, 4]])
    score(cache, model, [[3, 4], [5, 6], [1, 2]])
    score(cache, model, [[5, 6]])
    assert [len(asked) for asked in model.asked] == [2, 1]
    assert (metrics.hits("prediction").value, metrics.misses("prediction").value) == (3, 3)


def test_bits_decide() -> None:
    """NaN equals NaN of the same bits; 0.0 is not -0.0; NaNs of other bits are others."""
    other_nan = np.array([0x7FF8000000000001], dtype=np.uint64).view(np.float64)[0]
    model, cache = CachedModel(), PredictionCache(100, Metrics())
    score(cache, model, [[np.nan, 0.0], [np.nan, -0.0], [other_nan, 0.0], [np.inf, 5e-324]])
    score(cache, model, [[np.nan, 0.0], [np.inf, 5e-324], [np.nan, -0.0], [other_nan, 0.0]])
    assert [len(asked) for asked in model.asked] == [4]


def test_the_same_vector_twice_in_one_batch() -> None:
    model, cache = CachedModel(), PredictionCache(100, Metrics())
    score(cache, model, [[1, 2], [1, 2]])
    score(cache, model, [[7, 8], [1, 2], [7, 8]])
    score(cache, model, [[7, 8]])
    assert len(model.asked) == 2


def test_packages_do_not_share_scores() -> None:
    one, two, cache = CachedModel(1, Package("one")), CachedModel(1, Package("two")), PredictionCache(100, Metrics())
    score(cache, one, [[1, 2]])
    score(cache, two, [[1, 2]])
    assert (len(one.asked), len(two.asked)) == (1, 1)


def test_what_was_put_first_goes_first() -> None:
    model, cache = CachedModel(), PredictionCache(3, Metrics())
    score(cache, model, [[1, 1], [2, 2], [3, 3], [4, 4]])
    score(cache, model, [[2, 2], [3, 3], [4, 4]])
    assert len(model.asked) == 1
    score(cache, model, [[1, 1]])
    assert len(model.asked) == 2


def test_a_batch_larger_than_the_cache_is_answered() -> None:
    model, cache = CachedModel(2), PredictionCache(2, Metrics())
    rows = [[float(i), 0.0] for i in range(20)]
    score(cache, model, rows)
    score(cache, model, rows)
    assert [len(asked) for asked in model.asked] == [20, 18]


@pytest.mark.parametrize("outputs", [1, 3])
def test_no_rows_at_all(outputs: int) -> None:
    score(PredictionCache(2, Metrics()), CachedModel(outputs), [])


def test_a_caller_may_change_what_it_got() -> None:
    model, cache = CachedModel(), PredictionCache(10, Metrics())
    matrix = np.ones((1, 2))
    first = cache.score(cast("ServedModel", model), matrix, model.score)
    first[:] = 7.0
    score(cache, model, [[1, 1]])


def test_a_model_that_fails_leaves_nothing_behind() -> None:
    def fail(_: ServedModel, matrix: Values) -> Values:
        raise ZeroDivisionError(len(matrix))

    model, cache = CachedModel(), PredictionCache(10, Metrics())
    score(cache, model, [[1, 1]])
    with pytest.raises(ZeroDivisionError):
        cache.score(cast("ServedModel", model), np.zeros((1, 2)), fail)
    score(cache, model, [[1, 1], [0, 0]])
    assert [len(asked) for asked in model.asked] == [1, 1]


NUMBERS = st.sampled_from([0.0, -0.0, 1.0, np.nan, np.inf, 5e-324])


@given(
    st.lists(st.lists(st.lists(NUMBERS, min_size=2, max_size=2), max_size=6), max_size=8),
    st.integers(1, 12),
    st.sampled_from([1, 3]),
)
def test_any_run_of_batches_gives_the_bits_of_the_model(
    batches: list[list[list[float]]], most: int, outputs: int
) -> None:
    model, cache = CachedModel(outputs), PredictionCache(most, Metrics())
    for batch in batches:
        score(cache, model, batch)
