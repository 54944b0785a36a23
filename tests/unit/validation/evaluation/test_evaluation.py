"""Metrics against brute force over pairs and rows."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, ndcg_score, roc_auc_score

from skewless.contract.errors import SourceError
from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.infra.models.runtimes.port import Vector
from skewless.training.quality import quality_lines
from skewless.validation.evaluation.evaluation import calibration_table, evaluate
from skewless.validation.evaluation.metrics import Groups, ScoredRows, metric_value


def pairwise_auc(labels: list[float], scores: list[float], weights: list[float]) -> float | None:
    won = total = 0.0
    for label, score, weight in zip(labels, scores, weights, strict=True):
        for other_label, other_score, other_weight in zip(labels, scores, weights, strict=True):
            if label == 1 and other_label == 0:
                total += weight * other_weight
                won += weight * other_weight * (1.0 if score > other_score else 0.5 if score == other_score else 0.0)
    return won / total if total else None


ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.integers(1, 5)),
    min_size=1,
    max_size=40,
)


@given(ROWS)
def test_auc_counts_pairs_and_half_of_the_ties(rows: list[tuple[float, float, int]]) -> None:
    labels, scores, weights = ([float(row[at]) for row in rows] for at in range(3))
    expected = pairwise_auc(labels, scores, weights)
    scored = ScoredRows(labels=np.array(labels), scores=np.array(scores))
    found = metric_value("auc", scored, np.array(weights))
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-12))


@given(ROWS)
def test_a_weight_counts_as_that_many_rows(rows: list[tuple[float, float, int]]) -> None:
    labels, scores, weights = (np.array([float(row[at]) for row in rows]) for at in range(3))
    often = weights.astype(int)
    weighted = evaluate(labels, scores, weights)
    repeated = evaluate(np.repeat(labels, often), np.repeat(scores, often))
    for name in ("auc", "log_loss", "brier", "precision", "recall", "precision_at_base_rate", "recall_at_base_rate"):
        assert weighted[name] == (None if repeated[name] is None else pytest.approx(repeated[name], rel=1e-9))


def rows_of(size: int = 500) -> tuple[Vector, Vector]:
    rng = np.random.default_rng(2)
    scores = rng.random(size).round(2)
    return (rng.random(size) < scores).astype(float), scores


def test_binary_metrics_equal_those_by_hand() -> None:
    labels, scores = rows_of()
    pairs = list(zip(labels.tolist(), scores.clip(1e-15, 1 - 1e-15).tolist(), strict=True))
    found = evaluate(labels, scores)
    base = sum(label for label, _ in pairs) / 500
    loss = -sum(math.log(score) if label else math.log(1 - score) for label, score in pairs) / 500
    assert found["rows"] == 500
    assert found["base_rate"] == pytest.approx(base)
    assert found["log_loss"] == pytest.approx(loss)
    assert found["brier"] == pytest.approx(sum((score - label) ** 2 for label, score in pairs) / 500)
    for suffix, threshold in (("", 0.5), ("_at_base_rate", base)):
        hits = sum(label for label, score in pairs if score >= threshold)
        assert found[f"precision{suffix}"] == pytest.approx(hits / sum(score >= threshold for _, score in pairs))
        assert found[f"recall{suffix}"] == pytest.approx(hits / sum(label for label, _ in pairs))


def test_the_constant_prediction_stands_beside_every_metric() -> None:
    labels, scores = rows_of()
    found = evaluate(labels, scores)
    base = labels.mean()
    assert found["baseline_auc"] == 0.5
    assert found["baseline_brier"] == pytest.approx(base * (1 - base))
    assert found["baseline_log_loss"] == pytest.approx(-base * math.log(base) - (1 - base) * math.log(1 - base))
    assert found["baseline_calibration_error"] == 0.0
    own = {name for name in found if not name.startswith("baseline_")} - {"rows", "base_rate"}
    assert own == {name.removeprefix("baseline_") for name in found if name.startswith("baseline_")}


def test_the_names_of_the_gate_exist() -> None:
    labels, scores = rows_of()
    assert evaluate(labels, scores).keys() | evaluate(labels, scores, task="regression").keys() >= LOWER_IS_BETTER


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_gives_none_and_no_crash(label: float) -> None:
    found = evaluate(np.full(5, label), np.linspace(0.1, 0.4, 5))
    assert found["auc"] is None
    assert found["precision"] is None
    json.dumps(found, allow_nan=False)


def test_certain_and_wrong_is_a_finite_loss() -> None:
    found = evaluate(np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    assert found["log_loss"] == pytest.approx(-math.log(1e-15), rel=1e-3)
    assert found["auc"] == 0.0


def test_regression_metrics_equal_those_by_hand() -> None:
    found = evaluate(np.array([1.0, 2.0, 6.0]), np.array([1.0, 4.0, 3.0]), task="regression")
    assert found["rmse"] == pytest.approx(math.sqrt(13 / 3))
    assert found["mae"] == pytest.approx(5 / 3)
    assert found["baseline_mae"] == pytest.approx(2.0)
    assert found["base_rate"] == pytest.approx(3.0)


def test_multiclass_metrics_equal_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice([0.0, 1.0, 2.0], 400, p=[0.5, 0.3, 0.2])
    weights = rng.integers(1, 4, 400).astype(float)
    scores = rng.dirichlet([1.0, 1.0, 1.0], 400)
    scores[np.arange(400), labels.astype(int)] += 0.5
    scores /= scores.sum(axis=1, keepdims=True)
    found = evaluate(labels, scores, weights, task="multiclass")
    assert found["log_loss"] == pytest.approx(log_loss(labels, scores, sample_weight=weights))
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, scores.argmax(axis=1), sample_weight=weights))
    single = [roc_auc_score(labels == at, scores[:, at], sample_weight=weights) for at in range(3)]
    assert found["auc_macro"] == pytest.approx(np.mean(single))
    shares = np.array([weights[labels == at].sum() for at in range(3)]) / weights.sum()
    assert found["base_rate"] == found["baseline_accuracy"] == pytest.approx(shares.max())
    assert found["baseline_log_loss"] == pytest.approx(-(shares * np.log(shares)).sum())
    assert found["baseline_auc_macro"] == 0.5


def test_multiclass_metrics_of_one_class_and_of_certain_errors_exist() -> None:
    found = evaluate(np.zeros(3), np.array([[0.0, 1.0]] * 3), task="multiclass")
    assert found["auc_macro"] is None
    assert found["log_loss"] == pytest.approx(-math.log(1e-15))
    assert found["accuracy"] == 0.0
    json.dumps(found, allow_nan=False)


def ndcg(
    labels: Vector, scores: Vector, groups: Groups, *, at: int | None = None, weights: Vector | None = None
) -> float | None:
    found = evaluate(labels, scores, weights, task="ranking", groups=groups)
    return found["ndcg" if at is None else f"ndcg_at_{at}"]


def calibration_error(labels: Vector, scores: Vector) -> float | None:
    return evaluate(labels, scores)["calibration_error"]


@pytest.mark.parametrize("at", [None, 5])
def test_the_gain_of_an_order_equals_that_of_scikit_learn(at: int | None) -> None:
    rng = np.random.default_rng(6)
    groups = rng.integers(0, 30, 400)
    labels = rng.integers(0, 4, 400).astype(float)
    scores = rng.normal(size=400).round(1)  # with ties
    parts = [groups == group for group in np.unique(groups)]
    single = [ndcg_score([2 ** labels[part] - 1], [scores[part]], k=at) for part in parts]
    assert ndcg(labels, scores, groups, at=at) == pytest.approx(np.mean(single))
    weights = np.where(groups < 10, 3.0, 1.0)
    heavy = [weights[part][0] for part in parts]
    assert ndcg(labels, scores, groups, at=at, weights=weights) == pytest.approx(np.average(single, weights=heavy))


def test_a_ranking_evaluation_counts_groups_with_something_to_find() -> None:
    labels, groups = np.array([0.0, 0.0, 0.0, 2.0, 1.0]), np.array([7, 7, 3, 3, 3])
    found = evaluate(labels, np.array([1.0, 2.0, 0.0, 5.0, 4.0]), task="ranking", groups=groups)
    assert (found["ndcg"], found["ndcg_at_5"], found["rows"]) == (1.0, 1.0, 5.0)
    worst = evaluate(labels, np.array([1.0, 2.0, 9.0, 4.0, 5.0]), task="ranking", groups=groups)
    baseline = found["baseline_ndcg"]
    assert worst["ndcg"] is not None
    assert baseline is not None
    assert worst["ndcg"] < baseline < 1.0
    nothing = evaluate(np.zeros(2), np.zeros(2), task="ranking", groups=np.zeros(2, dtype=np.int64))
    assert nothing["ndcg"] is None
    assert ndcg(labels, labels, groups, weights=np.where(groups == 7, 1.0, 0.0)) is None


def test_quality_is_told_for_every_task() -> None:
    assert quality_lines(evaluate(np.array([1.0, 2.0]), np.array([1.0, 4.0]), task="regression")) == [
        "rmse 1.4142 (base 0.5000)",
        "mae 1.0000 (base 0.5000)",
    ]
    order = evaluate(np.array([0.0]), np.array([1.0]), task="ranking")
    assert quality_lines(order) == [f"{name} undefined (base undefined)" for name in ("ndcg", "ndcg_at_5")]
    classes = quality_lines(evaluate(np.array([0.0, 1.0]), np.array([[1.0, 0.0], [0.0, 1.0]]), task="multiclass"))
    assert classes[1:] == ["accuracy 1.0000 (base 0.5000)", "auc_macro 1.0000 (base 0.5000)"]


def test_calibration_bins_hold_equal_counts_and_every_row() -> None:
    rng = np.random.default_rng(4)
    scores = rng.random(1000)
    labels = (rng.random(1000) < scores).astype(float)
    table = calibration_table(labels, scores)
    assert [row["rows"] for row in table] == pytest.approx([100] * 10, abs=1)
    assert sum(row["rows"] for row in table) == 1000
    assert sum(row["rows"] * row["label"] for row in table) == pytest.approx(labels.sum())
    assert all(low["high"] < high["low"] for low, high in pairwise(table))
    gaps = sum(row["rows"] * abs(row["score"] - row["label"]) for row in table) / 1000
    assert calibration_error(labels, scores) == pytest.approx(gaps)
    assert gaps < 0.06


def test_calibration_does_not_depend_on_the_order_of_rows() -> None:
    labels, scores = rows_of()
    order = np.random.default_rng(1).permutation(labels.size)
    assert calibration_error(labels[order], scores[order]) == pytest.approx(calibration_error(labels, scores))


def test_a_score_that_is_always_wrong_by_the_same_amount() -> None:
    labels = np.array([0.0, 1.0] * 50)
    assert calibration_error(labels, np.full(100, 0.8)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("labels", "scores", "weights"),
    [([], [], None), ([1.0], [0.5, 0.5], None), ([1.0], [0.5], [0.0]), ([1.0], [0.5], [])],
)
def test_no_rows_or_unequal_parts_are_refused(
    labels: list[float], scores: list[float], weights: list[float] | None
) -> None:
    with pytest.raises(SourceError, match="evaluation"):
        evaluate(np.array(labels), np.array(scores), None if weights is None else np.array(weights))
