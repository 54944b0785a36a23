"""Live values fall into the bins of the training profile, whatever they are."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skewless.training.curves import profile_features
from skewless.validation.drift.histograms import Bins, Histograms
from skewless.validation.drift.verdicts import WindowCounts, describe_distributions

Floats = npt.NDArray[np.float64]
anything = st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e308, 5e-324]) | st.floats(-4, 4)
columns = st.integers(0, 30).flatmap(lambda n: arrays(np.float64, (n, 2), elements=anything, fill=st.nothing()))


def of(matrix: Floats) -> Histograms:
    features = profile_features(matrix, ["a", "b"])["features"]
    return Histograms.of_profile(Bins.of_profile(features), features)


def named(matrix: Floats) -> dict[str, Floats]:
    return {"a": matrix[:, 0], "b": matrix[:, 1], "not profiled": matrix[:, 0]}


@given(columns)
def test_what_the_profile_counted_is_what_its_rows_give(matrix: Floats) -> None:
    trained = of(matrix)
    np.testing.assert_array_equal(Histograms.empty(trained.bins).add_rows(named(matrix)).counts, trained.counts)


@given(columns, columns, columns)
def test_histograms_add_up_and_lose_no_row(trained: Floats, one: Floats, two: Floats) -> None:
    empty = Histograms.empty(of(trained).bins)
    both = empty.add_rows(named(np.concatenate([one, two])))
    np.testing.assert_array_equal(empty.add_rows(named(one)).add(empty.add_rows(named(two))).counts, both.counts)
    assert both.rows.tolist() == [len(one) + len(two)] * 2


@given(columns, columns)
def test_new_values_are_those_beyond_training(trained: Floats, live: Floats) -> None:
    now = Histograms.empty(of(trained).bins).add_rows(named(live))
    for i in range(2):
        finite, values = trained[np.isfinite(trained[:, i]), i], live[:, i]
        if not len(live) or not finite.size:
            continue
        real = values[np.isfinite(values)]
        outside = ((real < finite.min()) | (real > finite.max())).sum()
        assert now.new_share[i] == outside / len(live)
        assert now.null_share[i] == np.isnan(values).sum() / len(live)


@given(columns, columns)
def test_distributions_are_shares_of_all_values_and_json(trained: Floats, live: Floats) -> None:
    profile, now = profile_features(trained, ["a", "b"]), Histograms.empty(of(trained).bins).add_rows(named(live))
    described = describe_distributions(profile, ["a", "b"], WindowCounts(rows=len(live), histograms=now))
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    for i, name in enumerate(("a", "b")):
        finite = trained[np.isfinite(trained[:, i]), i]
        assert (name in described) == bool(finite.size)
        if finite.size:
            item = described[name]
            assert (item["low"], item["high"]) == (finite.min(), finite.max())
            assert abs(sum(item["trained"]) - 1 + np.isnan(trained[:, i]).mean()) < 1e-4
            inside = 1 - now.null_share[i] - now.new_share[i] if len(live) else 0.0
            assert abs(sum(item["now"]) - inside) < 1e-4


def test_a_constant_feature_that_moves_is_seen() -> None:
    trained = of(np.array([[3.0, 1.0]] * 10))
    now = Histograms.empty(trained.bins).add_rows({"a": np.array([3.0, 3.1, 2.9, np.nan]), "b": np.full(4, 1.0)})
    assert now.counts.tolist() == [[1, 1, 1, 1], [0, 0, 4, 0]]
    assert now.new_share.tolist() == [0.5, 0.0]


def test_no_rows_have_no_shares() -> None:
    empty = Histograms.empty(of(np.zeros((3, 2))).bins)
    assert np.isnan(empty.null_share).all()
    assert np.isnan(empty.new_share).all()
