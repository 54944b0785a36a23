"""Gower's distance against a plain loop."""

from __future__ import annotations

import math

import numpy as np

from skewless.validation.similar import gower_distances, spreads_of


def distance(own: float, other: float, spread: float, *, is_category: bool) -> float:
    if math.isnan(own) or math.isnan(other):
        return float(math.isnan(own) != math.isnan(other))
    if own == other:
        return 0.0
    return 1.0 if is_category or spread == 0 else min(abs(own - other) / spread, 1.0)


def test_distances_are_those_of_the_definition() -> None:
    values = np.array([0.0, 1.0, -3.5, 1e300, math.inf, -math.inf, math.nan])
    others = np.array([[other] * 3 for other in values])
    for own in values.tolist():
        found = gower_distances(np.full(3, own), others, [2.0, 0.0, 5.0], [2])
        expected = [
            [
                distance(own, other, 2.0, is_category=False),
                distance(own, other, 0.0, is_category=False),
                distance(own, other, 5.0, is_category=True),
            ]
            for other in values.tolist()
        ]
        assert found.tolist() == expected


def test_a_range_is_unknown_without_both_ends() -> None:
    profile: dict[str, dict[str, float | None]] = {"a": {"min": 1.0, "max": 4.0}, "b": {"min": None, "max": None}}
    assert spreads_of(profile, ["a", "b", "c"]) == [3.0, 0.0, 0.0]
