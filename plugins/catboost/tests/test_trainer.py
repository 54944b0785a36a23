"""CatBoost's trainer: its loss functions, and the models that it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.spec import Task
from skewless.infra.models.runtimes.candidates import open_runtime
from skewless.training.train import find_trainer
from tests.integration.training.trainers.test_trainers import rows_of, spec_of


@pytest.mark.parametrize(
    ("task", "params", "problem"),
    [
        ("regression", {"loss_function": "Poisson"}, "loss function that the runtime .* for regression .got 'Poisson'"),
        ("binary", {"objective": "Focal:gamma=2"}, "loss function that the runtime .* for binary .got 'Focal:gamma=2'"),
        ("binary", {"max_ctr_complexity": 2}, "statistics of several features.*max_ctr_complexity .got 2"),
        ("binary", {"depth": 99}, "is rejected by CatBoost: Maximum tree depth"),
        ("binary", {"iterations": 5}, r"has its own field .*ModelSpec\.rounds"),
    ],
)
def test_catboost_refuses_what_no_runtime_scores(task: Task, params: Mapping[str, object], problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        find_trainer("catboost").train(rows_of(task, size=100), spec_of("catboost", task=task, params=params))


def test_catboost_refuses_features_that_never_change() -> None:
    rows = replace(rows_of("binary", size=100), matrix=np.full((100, 4), [1.0, 2.0, np.nan, 4.0]))
    with pytest.raises(SourceError, match="has one value per feature"):
        find_trainer("catboost").train(rows, spec_of("catboost"))


def test_quantiles_of_catboost_have_a_parameter(tmp_path: Path) -> None:
    rows = rows_of("regression")
    shares = []
    for alpha in (0.1, 0.9):
        spec = spec_of("catboost", task="regression", params={"loss_function": f"Quantile:alpha={alpha}"}, rounds=100)
        model = find_trainer("catboost").train(rows, spec)
        path = tmp_path / model.file_name
        path.write_bytes(model.model)
        runtime = open_runtime("catboost", path)
        assert np.array_equal(runtime.score(rows.matrix).view(np.int64), model.score(rows.matrix).view(np.int64))
        shares.append(float((rows.labels < runtime.score(rows.matrix)).mean()))
        runtime.close()
    assert shares[0] < 0.2
    assert shares[1] > 0.8
