"""What more views are worth, with the spread of chance."""

from __future__ import annotations

import numpy as np
import pytest

from skewless.validation.evaluation.metrics import ScoredRows
from skewless_demo.tour_state import auc_gain, gain_text


def scored(strength: float, n: int = 2_000) -> ScoredRows:
    """Return scores that tell labels apart as well as their strength says; the labels are always the same."""
    chance = np.random.default_rng(5)
    labels = (chance.random(n) < 0.3).astype(np.float64)
    return ScoredRows(labels=labels, scores=strength * labels + chance.normal(size=n))


def test_a_better_model_gains_beyond_chance() -> None:
    gain = auc_gain(scored(0.2), scored(1.0))
    assert gain is not None
    assert gain.gain is not None
    assert gain.low is not None
    assert gain.high is not None
    assert 0 < gain.low < gain.gain < gain.high
    assert gain_text(gain).startswith(f"AUC {gain.champion:.3f} -> {gain.candidate:.3f}, gain {gain.gain:.3f} [")


def test_the_interval_of_no_gain_is_no_gain() -> None:
    gain = auc_gain(scored(0.5), scored(0.5))
    assert gain is not None
    assert (gain.low, gain.gain, gain.high) == (0.0, 0.0, 0.0)


def test_the_interval_is_as_wide_as_an_independent_estimate() -> None:
    before, after = scored(0.2), scored(1.0)
    gain = auc_gain(before, after)
    assert gain is not None
    assert gain.low is not None
    assert gain.high is not None
    # DeLong: the variance of a difference of placements, over late and other rows.
    late = before.labels == 1.0
    spread = sum(
        np.var(placements(after, own=rows) - placements(before, own=rows), ddof=1) / rows.sum()
        for rows in (late, ~late)
    )
    assert (gain.high - gain.low) / (2 * 1.96) == pytest.approx(np.sqrt(spread), rel=0.2)


def placements(
    model: ScoredRows, own: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return, for each row of a class, the share of the other class on its right side."""
    positive = bool(model.labels[own][0] == 1.0)
    others = model.scores[~own]
    return np.array([np.mean(others < score) if positive else np.mean(others > score) for score in model.scores[own]])


def test_other_rows_are_not_compared() -> None:
    assert auc_gain(scored(0.2), scored(0.2, n=100)) is None


def test_one_class_has_no_gain() -> None:
    same = ScoredRows(labels=np.ones(5), scores=np.arange(5.0))
    assert auc_gain(same, same) is None
