"""Curves against scikit-learn's, and against the numbers that they must sum to."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from skewless.training.curves import compute_curves, histogram

RNG = np.random.default_rng(4)
LABELS = RNG.integers(0, 2, 150).astype(np.float64)
SCORES = np.floor(100 * (0.3 * LABELS + RNG.random(150) * 0.7)) / 100
WEIGHTS = RNG.integers(1, 4, 150).astype(np.float64)


def test_roc_and_precision_recall_are_scikit_learn_s() -> None:
    found = compute_curves(LABELS, SCORES, WEIGHTS, task="binary")
    false, true, _ = roc_curve(LABELS, SCORES, sample_weight=WEIGHTS, drop_intermediate=False)
    np.testing.assert_allclose(found["roc"]["false_positive"], false)
    np.testing.assert_allclose(found["roc"]["true_positive"], true)
    precision, recall, thresholds = precision_recall_curve(LABELS, SCORES, sample_weight=WEIGHTS)
    curve = found["precision_recall"]
    np.testing.assert_allclose(curve["precision"], precision[:-1][::-1])
    np.testing.assert_allclose(curve["recall"], recall[:-1][::-1])
    np.testing.assert_allclose(curve["threshold"], thresholds[::-1])
    assert json.loads(json.dumps(found)) == found


def test_many_points_are_thinned_with_both_ends() -> None:
    labels = RNG.integers(0, 2, 5_000).astype(np.float64)
    roc = compute_curves(labels, RNG.random(5_000), np.ones(5_000), task="binary")["roc"]
    assert len(roc["true_positive"]) == 200
    assert (roc["true_positive"][0], roc["true_positive"][-1]) == (0.0, 1.0)


def test_one_class_has_no_roc() -> None:
    found = compute_curves(np.zeros(9), np.linspace(0, 1, 9), np.ones(9), task="binary")
    assert set(found) == {"calibration", "scores"}
    assert (sum(found["scores"]["0"]["counts"]), sum(found["scores"]["1"]["counts"])) == (9, 0)


def test_the_confusion_is_scikit_learn_s() -> None:
    labels, scores = RNG.integers(0, 3, 90).astype(np.float64), RNG.random((90, 3))
    weights = RNG.integers(1, 4, 90).astype(np.float64)
    expected = confusion_matrix(labels, scores.argmax(axis=1), sample_weight=weights)
    assert compute_curves(labels, scores, weights, task="multiclass") == {"confusion": expected.tolist()}


def test_every_finite_value_is_counted_once() -> None:
    values = np.array([1.0, 2.0, np.nan, np.inf, 2.0])
    found = histogram(values)
    assert (sum(found["counts"]), len(found["edges"])) == (3, len(found["counts"]) + 1)
    regression = compute_curves(LABELS * 3, SCORES, WEIGHTS, task="regression")
    assert sum(regression["residuals"]["counts"]) == sum(regression["scores"]["all"]["counts"]) == 150


@pytest.mark.parametrize("n", [1, 2])
def test_few_rows_have_curves_too(n: int) -> None:
    assert compute_curves(np.ones(n), np.ones(n), np.ones(n), task="regression")["residuals"]["counts"]
