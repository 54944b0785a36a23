"""Intervals hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from skewless.validation.evaluation.interval import auc_interval, mean_interval, metric_interval
from skewless.validation.evaluation.metrics import auc

TRIALS = 400
SLACK = 4 * (0.95 * 0.05 / TRIALS) ** 0.5  # four standard deviations of a share


def test_the_interval_of_auc_holds_the_true_one() -> None:
    rng = np.random.default_rng(5)
    truth = float(norm.cdf(1 / 2**0.5))
    labels = np.repeat([0.0, 1.0], (150, 50))
    held = 0
    for _ in range(TRIALS):
        found = auc_interval(labels, rng.normal(size=200) + labels)
        assert found is not None
        held += found.low <= truth <= found.high
    assert held / TRIALS == pytest.approx(0.95, abs=SLACK)


def test_the_interval_of_auc_is_around_it() -> None:
    rng = np.random.default_rng(6)
    labels, scores = (rng.random(90) < 0.4).astype(float), rng.integers(0, 9, 90) / 9
    found = auc_interval(labels, scores)
    assert found is not None
    assert (found.low + found.high) / 2 == pytest.approx(auc(labels, scores))


@pytest.mark.parametrize("metric", ["log_loss", "brier", "mae", "rmse"])
def test_the_interval_of_a_mean_holds_what_many_rows_say(metric: str) -> None:
    rng = np.random.default_rng(7)
    likely = rng.random(200_000)
    labels = (rng.random(likely.size) < likely).astype(float)
    whole = metric_interval(metric, labels, likely)
    assert whole is not None
    truth = (whole.low + whole.high) / 2
    held = 0
    for i in range(TRIALS):
        part = slice(i * 400, (i + 1) * 400)
        found = metric_interval(metric, labels[part], likely[part])
        assert found is not None
        held += found.low <= truth <= found.high
    assert held / TRIALS == pytest.approx(0.95, abs=SLACK)


def test_too_few_rows_and_unknown_metrics_have_none() -> None:
    labels, scores = np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.8])
    assert auc_interval(labels, scores) is None
    assert mean_interval(scores[:1]) is None
    assert metric_interval("precision", labels, scores) is None
    assert metric_interval("brier", labels[:0], scores[:0]) is None


def test_intervals_hold_the_truth_where_rows_of_an_entity_vary_together() -> None:
    rng = np.random.default_rng(8)
    units = np.repeat(np.arange(60, dtype=np.uint64), 8)
    truth = float(norm.cdf(1 / (1.0 + 1.0) ** 0.5 / 2**0.5))
    held = {"mean": 0, "mean by rows": 0, "auc": 0}
    for _ in range(TRIALS):
        shared = np.repeat(rng.normal(size=60), 8)
        values = shared + rng.normal(size=480)
        labels = (rng.random(480) < 0.4).astype(float)
        found = {
            "mean": mean_interval(values, units),
            "mean by rows": mean_interval(values),
            "auc": auc_interval(labels, values + labels, units),
        }
        for name, each in found.items():
            assert each is not None
            held[name] += each.low <= (truth if name == "auc" else 0.0) <= each.high
    assert held["mean"] / TRIALS == pytest.approx(0.95, abs=2 * SLACK)
    assert held["auc"] / TRIALS == pytest.approx(0.95, abs=2 * SLACK)
    assert held["mean by rows"] / TRIALS < 0.75


def test_where_each_row_is_alone_units_change_next_to_nothing() -> None:
    rng = np.random.default_rng(9)
    labels, scores = (rng.random(400) < 0.4).astype(float), rng.random(400)
    alone = np.arange(400, dtype=np.uint64)
    for metric in ("auc", "log_loss", "rmse"):
        by_rows, by_units = metric_interval(metric, labels, scores), metric_interval(metric, labels, scores, alone)
        assert by_rows is not None
        assert by_units == pytest.approx(by_rows, rel=1e-3)
    assert mean_interval(scores, np.zeros(400, dtype=np.uint64)) is None
