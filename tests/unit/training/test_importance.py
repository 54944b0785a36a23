"""What the quality loses without a feature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skewless.infra.models.runtimes.port import Matrix, Scores
from skewless.training.curves import compute_importance
from skewless.training.trainers.port import TrainedModel
from skewless.validation.evaluation.metrics import auc
from tests.unit.training.only_test_rows import LABELS, N

MATRIX = np.column_stack([LABELS, np.random.default_rng(0).random(N)])
MODEL = TrainedModel(
    algorithm="a",
    library="a",
    model=b"",
    file_name="m",
    rounds=1,
    raw_margin=lambda matrix: matrix[:, 0],
    score=lambda matrix: matrix[:, 0],
    thresholds=(),
    importance={"right": 3.0, "noise": 1.0},
    splits={"right": 2, "noise": 1},
)


def quality(scores: Scores) -> float | None:
    return auc(LABELS, scores)


def test_a_feature_that_decides_costs_all_and_one_that_does_not_nothing() -> None:
    before = MATRIX.copy()
    found = compute_importance(MODEL, MATRIX, "auc", quality, 1)
    assert (found["gain"], found["splits"], found["metric"]) == (MODEL.importance, MODEL.splits, "auc")
    assert abs(found["permutation"]["right"] - 0.5) < 0.1
    assert found["permutation"]["noise"] == 0.0
    assert np.array_equal(MATRIX, before)
    assert found == compute_importance(MODEL, MATRIX, "auc", quality, 1)


def test_where_lower_is_better_a_rise_is_the_cost() -> None:
    def loss(scores: Scores) -> float:
        return float(np.abs(scores - LABELS).mean())

    assert compute_importance(MODEL, MATRIX, "mae", loss, 1)["permutation"]["right"] > 0.3


def test_without_the_metric_or_splits_they_are_left_out() -> None:
    assert set(compute_importance(replace(MODEL, splits={}), MATRIX, "auc", lambda _: None, 1)) == {"gain"}

    def once(scores: Matrix) -> float | None:
        return 1.0 if np.array_equal(scores, LABELS) else None

    assert set(compute_importance(MODEL, MATRIX, "auc", once, 1)) == {"gain", "splits"}
