"""Intervals hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from skewless.infra.models.runtimes.port import Vector
from skewless.validation.evaluation.interval import Units, auc_interval, mean_interval, metric_interval
from skewless.validation.evaluation.metrics import auc

TRIALS = 400
SLACK = 4 * (0.95 * 0.05 / TRIALS) ** 0.5  # four standard deviations of a share


def alone(rows: Vector) -> Units:
    """Each row is a unit."""
    return np.arange(rows.size, dtype=np.uint64)


def delong_error(labels: Vector, scores: Vector) -> float:
    """The standard error of DeLong, DeLong and Clarke-Pearson (1988), by pairs."""
    pairs = scores[labels == 1.0][:, None] - scores[labels != 1.0]
    won = np.where(pairs > 0, 1.0, np.where(pairs == 0, 0.5, 0.0))
    sides = (won.mean(axis=1), won.mean(axis=0))
    return float(sum(side.var(ddof=1) / side.size for side in sides) ** 0.5)


def test_the_interval_of_auc_holds_the_true_one() -> None:
    rng = np.random.default_rng(5)
    truth = float(norm.cdf(1 / 2**0.5))
    labels = np.repeat([0.0, 1.0], (150, 50))
    held = 0
    for _ in range(TRIALS):
        found = auc_interval(labels, rng.normal(size=200) + labels, alone(labels))
        assert found is not None
        held += found.low <= truth <= found.high
    assert held / TRIALS == pytest.approx(0.95, abs=SLACK)


def test_the_interval_of_auc_is_around_it() -> None:
    rng = np.random.default_rng(6)
    labels, scores = (rng.random(90) < 0.4).astype(float), rng.integers(0, 9, 90) / 9
    found = auc_interval(labels, scores, alone(labels))
    assert found is not None
    assert (found.low + found.high) / 2 == pytest.approx(auc(labels, scores))


@pytest.mark.parametrize("metric", ["log_loss", "brier", "mae", "rmse"])
def test_the_interval_of_a_mean_holds_what_many_rows_say(metric: str) -> None:
    rng = np.random.default_rng(7)
    likely = rng.random(200_000)
    labels = (rng.random(likely.size) < likely).astype(float)
    whole = metric_interval(metric, labels, likely, alone(labels))
    assert whole is not None
    truth = (whole.low + whole.high) / 2
    held = 0
    for i in range(TRIALS):
        part = slice(i * 400, (i + 1) * 400)
        found = metric_interval(metric, labels[part], likely[part], alone(labels[part]))
        assert found is not None
        held += found.low <= truth <= found.high
    assert held / TRIALS == pytest.approx(0.95, abs=SLACK)


def test_too_few_rows_and_unknown_metrics_have_none() -> None:
    labels, scores = np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.8])
    units = alone(labels)
    assert auc_interval(labels, scores, units) is None
    assert mean_interval(scores[:1], units[:1]) is None
    assert metric_interval("precision", labels, scores, units) is None
    assert metric_interval("brier", labels[:0], scores[:0], units[:0]) is None


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
            "mean by rows": mean_interval(values, alone(values)),
            "auc": auc_interval(labels, values + labels, units),
        }
        for name, each in found.items():
            assert each is not None
            held[name] += each.low <= (truth if name == "auc" else 0.0) <= each.high
    assert held["mean"] / TRIALS == pytest.approx(0.95, abs=2 * SLACK)
    assert held["auc"] / TRIALS == pytest.approx(0.95, abs=2 * SLACK)
    assert held["mean by rows"] / TRIALS < 0.75


def test_where_each_row_is_a_unit_the_errors_are_the_usual_ones() -> None:
    rng = np.random.default_rng(9)
    labels, scores = (rng.random(400) < 0.4).astype(float), rng.random(400)
    by_units, errors = auc_interval(labels, scores, alone(labels)), mean_interval(scores, alone(scores))
    assert by_units is not None
    assert errors is not None
    area, radius = auc(labels, scores), norm.ppf(0.975) * delong_error(labels, scores)
    assert area is not None
    assert by_units == pytest.approx((area - radius, area + radius), rel=1e-3)
    assert errors.high - errors.low == pytest.approx(2 * norm.ppf(0.975) * scores.std(ddof=1) / 20, rel=1e-9)
    assert mean_interval(scores, np.zeros(400, dtype=np.uint64)) is None
