"""The paired bootstrap against a loop that draws rows, and against metrics of each weighting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from skewless.contract.spec import Task
from skewless.validation.evaluation.bootstrap import (
    MetricGain,
    ScorePair,
    normal_gain,
    paired_gain,
)
from skewless.validation.evaluation.evaluation import evaluate
from skewless.validation.evaluation.metrics import ScoredRows, auc, weighted_metric

BINARY = ["auc", "log_loss", "brier", "calibration_error", "precision", "recall", "precision_at_base_rate"]
CASES: list[tuple[Task, str]] = [
    *(("binary", name) for name in BINARY),
    ("regression", "rmse"),
    ("regression", "mae"),
    *(("multiclass", name) for name in ("log_loss", "accuracy", "auc_macro")),
    ("ranking", "ndcg"),
    ("ranking", "ndcg_at_5"),
]


def rows_of(task: Task, n: int = 120, seed: int = 5) -> dict[str, Any]:
    """Return labels, two score vectors with ties, and groups."""
    rng = np.random.default_rng(seed)
    labels = {"binary": rng.integers(0, 2, n), "multiclass": rng.integers(0, 3, n), "ranking": rng.integers(0, 4, n)}
    label = labels.get(task, rng.normal(size=n)).astype(np.float64)

    def scores(noise: float) -> Any:  # noqa: ANN401 - one or two dimensions
        if task == "multiclass":
            raw = np.eye(3)[label.astype(int)] + rng.random((n, 3)) * noise
            return raw / raw.sum(axis=1, keepdims=True)
        return np.clip(np.round(0.3 + 0.2 * label + rng.normal(size=n) * noise, 1), 0.0, 1.0)

    groups = rng.integers(0, 15, n) if task == "ranking" else None
    return {"labels": label, "candidate": scores(0.2), "champion": scores(0.5), "groups": groups}


def width(gain: MetricGain) -> float:
    assert gain.low is not None
    assert gain.high is not None
    return gain.high - gain.low


@pytest.mark.parametrize(("task", "metric"), CASES)
def test_metrics_of_many_weightings_are_those_of_each(task: Task, metric: str) -> None:
    rows = rows_of(task)
    weights = np.random.default_rng(1).integers(0, 4, (25, 120)).astype(np.float64)
    weights[0] = 0.0
    weights[0, :3] = 1.0
    scored = ScoredRows(labels=rows["labels"], scores=rows["candidate"], groups=rows["groups"])
    found = weighted_metric(metric, scored)(weights)
    for value, each in zip(found, weights, strict=True):
        one = evaluate(rows["labels"], rows["candidate"], each, task=task, groups=rows["groups"])[metric]
        assert np.isnan(value) if one is None else value == pytest.approx(one, abs=1e-12)


@pytest.mark.parametrize("metric", ["auc", "brier"])
def test_the_interval_is_that_of_a_loop_that_draws_rows(metric: str) -> None:
    rows = rows_of("binary")
    rows.pop("groups")
    found = paired_gain(ScorePair(**rows), metric, resamples=4_000, confidence=0.9)
    rng, gains = np.random.default_rng(99), []
    measure = auc if metric == "auc" else lambda labels, scores: float(np.mean((scores - labels) ** 2))
    for _ in range(4_000):
        at = rng.integers(0, 120, 120)
        one, other = (measure(rows["labels"][at], rows[side][at]) for side in ("candidate", "champion"))
        assert one is not None
        assert other is not None
        gains.append(one - other if metric == "auc" else other - one)
    low, high = np.quantile(gains, [0.05, 0.95])
    width = high - low
    assert found.low == pytest.approx(low, abs=0.06 * width)
    assert found.high == pytest.approx(high, abs=0.06 * width)
    assert found.gain is not None
    assert low < found.gain < high
    close = normal_gain(ScorePair(**rows), metric, resamples=4_000, confidence=0.9)
    assert close.low == pytest.approx(low, abs=0.15 * width)


def test_a_query_is_drawn_whole() -> None:
    """Fifty equal rows a query say no more than one: rows drawn each for itself would claim they do."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 50)
    labels, candidate, champion = (np.repeat(rng.random(40), 50) for _ in range(3))
    rows = ScorePair(labels=labels, candidate=candidate, champion=champion, task="regression")
    queries = ScorePair(labels=labels, candidate=candidate, champion=champion, task="regression", groups=groups)
    by_query, by_row = (paired_gain(each, "mae", seed=3) for each in (queries, rows))
    assert by_query.gain == by_row.gain
    assert width(by_query) > 5 * width(by_row)


def test_weights_count_and_the_seed_decides() -> None:
    rows = rows_of("binary")
    rows.pop("groups")
    weights = np.where(np.arange(120) < 60, 1.0, 0.0)
    half = paired_gain(ScorePair(**{name: value[:60] for name, value in rows.items()}), "auc")
    whole = paired_gain(ScorePair(weights=weights, **rows), "auc", seed=4)
    assert whole.gain == pytest.approx(half.gain)
    assert whole == paired_gain(ScorePair(weights=weights, **rows), "auc", seed=4)
    assert whole != paired_gain(ScorePair(weights=weights, **rows), "auc", seed=5)


def test_a_metric_that_does_not_exist_has_no_interval() -> None:
    labels, scores = np.zeros(30), np.linspace(0, 1, 30)
    found = paired_gain(ScorePair(labels=labels, candidate=scores, champion=scores), "auc")
    assert (found.candidate, found.gain, found.low, found.high) == (None, None, None, None)
    assert normal_gain(ScorePair(labels=labels, candidate=scores, champion=scores), "auc").low is None


def test_equal_scores_gain_exactly_nothing() -> None:
    rows = rows_of("binary")
    found = paired_gain(
        ScorePair(labels=rows["labels"], candidate=rows["champion"], champion=rows["champion"]), "log_loss"
    )
    assert (found.gain, found.low, found.high) == (0.0, 0.0, 0.0)


def test_the_interval_holds_the_true_gain_about_as_often_as_it_says() -> None:
    """Two noisy predictors whose mean absolute errors differ by exactly 0.1 in the long run."""
    rng, held = np.random.default_rng(11), 0
    for _ in range(300):
        labels = np.zeros(250)
        candidate, champion = rng.exponential(0.5, 250), rng.exponential(0.6, 250)
        pair = ScorePair(labels=labels, candidate=candidate, champion=champion, task="regression")
        found = paired_gain(pair, "mae", confidence=0.9, resamples=400)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.1 <= found.high
    assert 0.85 < held / 300 < 0.95
