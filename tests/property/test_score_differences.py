"""Differences of two models' scores, against scipy and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from skewless.contract.score_differences import ScoreDifferences

SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
PAIRS = st.lists(st.tuples(SCORES, SCORES), min_size=2, max_size=40)


@given(PAIRS)
def test_rank_correlation_and_quantiles(pairs: list[tuple[float, float]]) -> None:
    array = np.array(pairs)
    difference = array[:, 1] - array[:, 0]
    found = ScoreDifferences(rows=len(pairs), total=float(difference.sum()), pairs=array)
    if np.ptp(array[:, 0]) and np.ptp(array[:, 1]):
        assert found.rank_correlation == pytest.approx(spearmanr(array[:, 0], array[:, 1]).statistic, abs=1e-12)
    else:
        assert np.isnan(found.rank_correlation)
    assert found.mean == pytest.approx(difference.mean())
    np.testing.assert_allclose(found.quantiles((0.1, 0.5, 0.9)), np.quantile(difference, (0.1, 0.5, 0.9)))


@given(PAIRS, PAIRS)
def test_two_servers_together(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> None:
    parts = [ScoreDifferences(rows=len(p), total=sum(b - a for a, b in p), pairs=np.array(p)) for p in (one, other)]
    both = parts[0] + parts[1]
    assert both.rows == len(one) + len(other)
    assert both.mean == pytest.approx(np.mean([b - a for a, b in one + other]))
    assert both.pairs.tolist() == [list(pair) for pair in one + other]


def test_nothing_was_compared() -> None:
    nothing = ScoreDifferences()
    assert np.isnan(nothing.mean)
    assert np.isnan(nothing.rank_correlation)
    assert np.isnan(nothing.quantiles((0.5,))).all()
