"""A profile counts every value once and is plain JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.training.curves import bin_counts, bin_edges, profile_features

VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=120)


@given(VALUES)
def test_every_value_lies_in_the_one_bin_that_its_edges_say(values: list[float]) -> None:
    column = np.array(values, dtype=np.float64)
    feature = profile_features(column[:, None], ["x"])["features"]["x"]
    edges = [-math.inf, *feature["edges"], math.inf]
    for index, count in enumerate(feature["counts"]):
        low, high = edges[index], edges[index + 1]
        assert count == sum(low <= value < high or (value == high == math.inf) for value in values)
    assert sum(feature["counts"]) + feature["nulls"] == len(values)
    assert len(feature["edges"]) <= 19
    assert feature["edges"] == sorted(set(feature["edges"]))
    json.dumps(feature, allow_nan=False)


def test_many_values_fill_bins_evenly() -> None:
    feature = profile_features(np.random.default_rng(1).normal(size=(10_000, 1)), ["x"])["features"]["x"]
    assert len(feature["counts"]) == 20
    assert feature["counts"] == pytest.approx([500] * 20, abs=2)


def test_few_values_have_a_bin_each() -> None:
    codes = np.array([0.0] * 50 + [1.0] * 3 + [7.0] * 40)
    feature = profile_features(codes[:, None], ["code"])["features"]["code"]
    assert feature["edges"] == [1.0, 7.0]
    assert feature["counts"] == [50, 3, 40]


def test_summary_is_of_finite_values() -> None:
    column = np.array([1.0, 3.0, np.nan, np.inf])
    feature = profile_features(column[:, None], ["x"])["features"]["x"]
    assert (feature["min"], feature["max"], feature["mean"]) == (1.0, 3.0, 2.0)
    assert (feature["nulls"], feature["null_share"]) == (1, 0.25)


def test_a_column_without_values_has_none() -> None:
    nothing = {"edges": [], "counts": [0], "nulls": 2, "null_share": 1.0, "min": None, "max": None, "mean": None}
    assert profile_features(np.full((2, 1), np.nan), ["x"]) == {"rows": 2, "features": {"x": nothing}}
    assert profile_features(np.empty((0, 1)), ["x"])["features"]["x"]["null_share"] == 0.0


def test_histograms_with_the_same_edges_add_up() -> None:
    rng = np.random.default_rng(3)
    one, two = rng.normal(size=500), rng.normal(1.0, size=300)
    edges = bin_edges(one)
    merged = np.array(bin_counts(one, edges)) + np.array(bin_counts(two, edges))
    assert bin_counts(np.concatenate([one, two]), edges) == merged.tolist()


def test_features_keep_their_order() -> None:
    assert list(profile_features(np.zeros((1, 3)), ["b", "a", "c"])["features"]) == ["b", "a", "c"]
