"""Scores become decisions at the thresholds that the spec names."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.actions import decide, most_likely

STEPS = {"approve": 0.0, "review": 0.5, "decline": 0.9}


@pytest.mark.parametrize(
    ("score", "decision"),
    [
        (0.0, "approve"),
        (-0.0, "approve"),
        (math.nextafter(0.0, -1), None),
        (math.nextafter(0.5, 0), "approve"),
        (0.5, "review"),
        (0.9, "decline"),
        (math.inf, "decline"),
        (-math.inf, None),
        (math.nan, None),
    ],
)
def test_the_last_threshold_reached_decides(score: float, decision: str | None) -> None:
    assert decide(STEPS, np.array([score])) == [decision]


def test_no_decisions_decide_nothing() -> None:
    assert decide({}, np.array([0.1, np.nan])) == [None, None]
    assert decide(STEPS, np.array([])) == []


@given(
    st.dictionaries(st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False), max_size=6),
    st.lists(st.floats(), max_size=20),
)
def test_every_score_has_the_highest_threshold_that_is_not_above_it(
    steps: dict[str, float], scores: list[float]
) -> None:
    rising = dict(sorted({lowest: name for name, lowest in steps.items()}.items()))
    decisions = {name: lowest for lowest, name in rising.items()}
    for score, found in zip(scores, decide(decisions, np.array(scores, dtype=np.float64)), strict=True):
        reached = [lowest for lowest in rising if lowest <= score]
        assert found == (rising[max(reached)] if reached else None)


def test_the_likeliest_class_is_named_and_of_equal_ones_the_first() -> None:
    scores = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0.0, 0.0, 1.0]])
    assert most_likely(("a", "b", "c"), scores) == ["b", "a", "c"]
    assert most_likely(("a", "b", "c"), scores[:0]) == []
