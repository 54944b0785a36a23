"""Estimated quality against the quality that labels then show, on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from skewless.validation.evaluation.evaluation import Row, calibration_table, evaluate
from skewless.validation.live_quality import calibrate, estimate_metrics

N = 40_000


def drawn(seed: int, a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    """Return true probabilities, and labels that follow them."""
    rng = np.random.default_rng(seed)
    likely = rng.beta(a, b, N)
    return likely, (rng.random(N) < likely).astype(float)


@pytest.mark.parametrize(("a", "b"), [(1.0, 5.0), (0.4, 0.4), (3.0, 3.0)])
def test_right_probabilities_say_what_labels_will(a: float, b: float) -> None:
    likely, labels = drawn(1, a, b)
    expected, found = estimate_metrics(likely, "binary"), evaluate(labels, likely)
    assert expected is not None
    for metric, within in (("auc", 0.01), ("log_loss", 0.01), ("brier", 0.01), ("precision", 0.05), ("recall", 0.02)):
        assert expected[metric] == pytest.approx(found[metric], abs=within), metric
    assert expected["rows"] == N


def test_scores_that_are_no_probabilities_are_calibrated_first() -> None:
    likely, labels = drawn(2, 2.0, 4.0)
    table = calibration_table(labels, likely**3, bins=20)
    later, truth = drawn(3, 4.0, 4.0)
    expected, found = estimate_metrics(later**3, "binary", table), evaluate(truth, later**3)
    assert expected is not None
    blind = estimate_metrics(later**3, "binary")
    assert blind is not None
    for metric in ("auc", "log_loss", "brier"):
        assert expected[metric] == pytest.approx(found[metric], abs=0.02), metric
    assert abs(float(blind["log_loss"] or 0) - float(found["log_loss"] or 0)) > 0.2


def test_a_calibration_never_falls_and_keeps_its_ends() -> None:
    table: list[Row] = [{"score": 0.2, "label": 0.5}, {"score": 0.4, "label": 0.3}, {"score": 0.6, "label": 0.9}]
    found = calibrate(np.linspace(0, 1, 101), table)
    assert (np.diff(found) >= 0).all()
    assert (found[0], found[40], found[-1]) == (0.0, 0.5, 1.0)


def test_classes_are_expected_by_their_probabilities() -> None:
    rng = np.random.default_rng(4)
    likely = rng.dirichlet((1.0, 2.0, 3.0), N)
    labels = (rng.random((N, 1)) > likely.cumsum(axis=1)).sum(axis=1).astype(float)
    expected, found = estimate_metrics(likely, "multiclass"), evaluate(labels, likely, task="multiclass")
    assert expected is not None
    for metric in ("log_loss", "accuracy", "auc_macro"):
        assert expected[metric] == pytest.approx(found[metric], abs=0.01), metric


def test_values_and_orders_have_no_probabilities() -> None:
    scores = np.array([0.1, 0.9])
    assert [
        estimate_metrics(scores, "regression"),
        estimate_metrics(scores, "ranking"),
        estimate_metrics(scores[:0], "binary"),
    ] == [None] * 3
