"""A search for parameters: on the validation rows, repeatable, within its budget."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.lifecycle import Search
from skewless.contract.spec import Gate, ModelSpec
from skewless.training.train import SearchResult, search
from skewless.training.trainers.port import TrainedModel, TrainingSet
from tests.unit.training.only_test_rows import LABELS, RIGHT, make_spec, wrong_in

ROWS = TrainingSet(matrix=RIGHT[:, None].copy(), labels=LABELS, feature_names=("x",))
BOWL = Search(space={"depth": (1, 9), "rate": (0.01, 1.0)}, trials=12, log=("rate",))


@dataclass
class Bowl:
    """A trainer whose models are right in more rows the nearer ``depth`` is to 6."""

    seen: list[dict[str, Any]] = field(default_factory=list)

    def train(self, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None = None) -> TrainedModel:
        assert validation is not None
        assert rows is ROWS
        self.seen.append(dict(spec.params))
        scores = wrong_in(0.1 + 0.1 * abs(spec.params.get("depth", 2) - 6))
        return TrainedModel(
            algorithm="bowl",
            library="bowl",
            model=b"",
            file_name="m",
            rounds=1,
            raw_margin=lambda _: scores,
            score=lambda _: scores,
            thresholds=(),
            importance={"x": 0.0},
        )


def found(spec: ModelSpec, trainer: Bowl | None = None) -> SearchResult:
    return search(trainer or Bowl(), ROWS, spec, ROWS)


def test_the_best_of_all_trials_is_taken_and_the_others_are_told() -> None:
    trainer = Bowl()
    result = found(make_spec(Gate(), search=BOWL, params={"leaves": 4}), trainer)
    assert len(result.trials) == 1 + 12
    assert [dict(trial.params) for trial in result.trials] == trainer.seen
    assert trainer.seen[0] == {"leaves": 4}
    values = [trial.value for trial in result.trials if trial.value is not None]
    assert result.trials[result.best].value == max(values) > values[0]
    assert result.trials[result.best].params["leaves"] == 4
    assert {type(params["depth"]) for params in trainer.seen[1:]} == {int}
    assert all(0.01 <= params["rate"] <= 1.0 for params in trainer.seen[1:])
    assert result == found(make_spec(Gate(), search=BOWL, params={"leaves": 4}))


def test_lower_is_better_where_it_is() -> None:
    result = found(make_spec(Gate(metric="brier"), search=BOWL))
    values = [trial.value for trial in result.trials if trial.value is not None]
    assert result.trials[result.best].value == min(values)


def test_declared_parameters_that_nothing_beats_are_kept() -> None:
    spec = make_spec(Gate(), search=Search(space={"depth": [1, 2, 9]}, trials=5), params={"depth": 6})
    result = found(spec)
    assert (result.best, dict(result.trials[0].params)) == (0, {"depth": 6})


def test_the_seconds_end_it() -> None:
    assert len(found(make_spec(Gate(), search=Search(space={"depth": (1, 9)}, trials=500, seconds=1e-9))).trials) < 5


def test_a_search_survives_its_package() -> None:
    spec = make_spec(Gate(), search=Search(space={"depth": (1, 9), "rate": (0.5, 1.0), "kind": ["a", "b"]}))
    assert ModelSpec.from_dict(spec.as_dict()) == spec


@pytest.mark.parametrize("space", [{"a": (2, 1)}, {"a": []}, {"a": 3}, {"a": (1, 2, 3)}, {"a": {"low": 1}}])
def test_a_space_that_is_none_is_refused(space: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="is not a range"):
        Search(space=space)


def test_without_validation_rows_or_optuna_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(Gate(), search=BOWL)
    with pytest.raises(DefinitionError, match=r"has no validation rows.*Split\.validation"):
        search(Bowl(), ROWS, spec, None)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(DefinitionError, match=r"needs Optuna.*extra 'search'"):
        found(spec)


def test_a_metric_that_no_trial_has_is_told() -> None:
    ones = TrainingSet(matrix=ROWS.matrix, labels=np.ones(len(LABELS)), feature_names=("x",))
    with pytest.raises(SourceError, match="have no auc on the validation rows"):
        search(Bowl(), ROWS, make_spec(Gate(), search=BOWL), ones)
