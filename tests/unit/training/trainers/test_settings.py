"""What trainers read out of a spec, and what they refuse."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.labels import LabelSource
from skewless.contract.spec import ModelSpec, Split, Task
from skewless.training.train import find_trainer
from skewless.training.trainers.port import (
    TrainingSet,
    cap_thresholds,
    check_labels,
    check_task,
    row_weights,
    split_parameters,
)

SPEC = ModelSpec(
    name="late",
    service="s",
    labels=LabelSource(path="p", event_time="e", known_time="k", label="y"),
    algorithm="lightgbm",
    split=Split(test=timedelta(days=1)),
)
SPECS: dict[Task, ModelSpec] = {
    "multiclass": replace(SPEC, task="multiclass", classes=("a", "b", "c")),
    "ranking": replace(SPEC, task="ranking", group="query"),
}
ROWS = TrainingSet(matrix=np.zeros((3, 2)), labels=np.array([0.0, 1.0, 1.0]), feature_names=("a", "b"))


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("n_estimators", "rounds"),
        ("num_iterations", "rounds"),
        ("iterations", "rounds"),
        ("seed", "seed"),
        ("scale_pos_weight", "class_weight"),
    ],
)
def test_a_parameter_with_a_field_of_its_own_is_refused(name: str, field: str) -> None:
    with pytest.raises(DefinitionError, match=rf"{name}.*ModelSpec\.{field}"):
        split_parameters(replace(SPEC, params={name: 3}), None)


def test_early_stopping_is_taken_out_and_needs_validation_rows() -> None:
    spec = replace(SPEC, params={"early_stopping_rounds": 5, "eta": 0.1})
    given = split_parameters(spec, ROWS)
    assert (given.values, given.early_stopping) == ({"eta": 0.1}, 5)
    with pytest.raises(DefinitionError, match=r"Split\.validation"):
        split_parameters(spec, None)
    assert split_parameters(SPEC, None).early_stopping is None


def test_class_weight_multiplies_the_weights_of_positive_rows() -> None:
    weighted = replace(ROWS, weights=np.array([1.0, 2.0, 0.5]))
    heavy = replace(SPEC, class_weight=3.0)
    for rows, spec, expected in (
        (ROWS, heavy, [1.0, 3.0, 3.0]),
        (weighted, heavy, [1.0, 6.0, 1.5]),
        (weighted, SPEC, [1.0, 2.0, 0.5]),
        (weighted, replace(heavy, task="regression"), [1.0, 2.0, 0.5]),
    ):
        found = row_weights(rows, spec)
        assert found is not None
        assert found.tolist() == expected
    assert row_weights(ROWS, SPEC) is None


@pytest.mark.parametrize("labels", [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 2.0], [-1.0, 1.0, 1.0]])
def test_binary_labels_are_both_0_and_1(labels: list[float]) -> None:
    rows = replace(ROWS, labels=np.array(labels))
    with pytest.raises(SourceError, match="late"):
        check_labels(rows, SPEC)
    check_labels(rows, replace(SPEC, task="regression"))
    check_labels(ROWS, SPEC)


@pytest.mark.parametrize(
    ("task", "labels", "problem"),
    [
        ("multiclass", [0.0, 1.0, 3.0], "not at least two of the classes 0 to 2"),
        ("multiclass", [0.0, 0.5, 1.0], "not at least two of the classes 0 to 2"),
        ("multiclass", [-1.0, 0.0, 1.0], "not at least two of the classes 0 to 2"),
        ("multiclass", [1.0, 1.0, 1.0], "not at least two of the classes 0 to 2"),
        ("ranking", [0.0, 0.5, 1.0], "not integers from 0 to 30"),
        ("ranking", [0.0, 31.0, 1.0], "not integers from 0 to 30"),
        ("ranking", [-1.0, 0.0, 1.0], "not integers from 0 to 30"),
    ],
)
def test_labels_fit_the_task(task: Task, labels: list[float], problem: str) -> None:
    spec = SPECS[task]
    with pytest.raises(SourceError, match=problem):
        check_labels(replace(ROWS, labels=np.array(labels)), spec)
    check_labels(ROWS, spec)


def test_a_task_that_a_library_cannot_do_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"cannot be trained by lightgbm.*'ranking'.*binary, regression"):
        check_task(SPECS["ranking"], ("binary", "regression"))
    check_task(SPEC, ("binary", "regression"))


def test_thresholds_are_thinned_evenly_and_keep_their_ends() -> None:
    found = cap_thresholds([(1, float(value)) for value in range(1000)] + [(0, 0.5)])
    assert found[0] == (0, 0.5)
    assert len(found) == 41
    assert (found[1], found[-1]) == ((1, 0.0), (1, 999.0))


def test_rows_that_do_not_fit_are_refused() -> None:
    for wrong, problem in (
        ({"matrix": np.zeros((3, 3))}, "names"),
        ({"matrix": np.zeros((3, 2), dtype=np.float32)}, "names"),
        ({"matrix": np.zeros(3)}, "names"),
        ({"labels": np.array([0.0, np.nan, 1.0])}, "labels"),
        ({"labels": np.zeros(2)}, "labels"),
        ({"weights": np.array([1.0, -1.0, 1.0])}, "weights"),
        ({"weights": np.array([1.0, np.nan, 1.0])}, "weights"),
        ({"groups": np.array([1, 2])}, "groups"),
    ):
        with pytest.raises(SourceError, match=problem):
            replace(ROWS, **wrong)


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skewless.training.trainers.xgboost", None)
    with pytest.raises(DefinitionError, match=r"not installed.*extra 'cpu'"):
        find_trainer("xgboost")
