"""Training with XGBoost on a GPU: what is packaged is what XGBoost on the CPU makes of the trees from the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import numpy as np
import pytest
import xgboost as xgb
from structlog.testing import capture_logs

from plugins.gpu.tests.conftest import little_memory
from skewless.contract.labels import LabelSource
from skewless.contract.spec import ModelSpec, Split
from skewless.infra.models.runtimes.certification import Reference, certify, reference_rows
from skewless.infra.models.runtimes.xgboost_capi import XGBoostRuntime
from skewless.training.trainers.port import TrainedModel, TrainingSet
from skewless.training.trainers.xgboost import XGBoostTrainer
from skewless.validation.evaluation.metrics import auc

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]
NAMES = ("plain", "noise", "kind")
Task = Literal["binary", "regression", "multiclass", "ranking"]
TASKS: Sequence[Task] = ("binary", "regression", "multiclass", "ranking")


def spec_of(device: Literal["auto", "cpu"], task: Task = "binary") -> ModelSpec:
    return ModelSpec(
        name="late",
        service="s",
        labels=LabelSource(path="p", event_time="e", known_time="k", label="y"),
        algorithm="xgboost",
        task=task,
        split=Split(test=timedelta(days=1)),
        params={"learning_rate": 0.2, "max_depth": 5},
        rounds=60,
        classes=("low", "middle", "high") if task == "multiclass" else (),
        group="query" if task == "ranking" else None,
        device=device,
    )


def rows_of(task: Task = "binary", size: int = 20_000, seed: int = 1) -> TrainingSet:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(size, 3))
    matrix[:, 2] = rng.integers(0, 30, size)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    target = np.nan_to_num(matrix[:, 0]) + 2.0 * (np.nan_to_num(matrix[:, 2]) % 3 == 0) + rng.normal(size=size) / 2
    labels = {
        "binary": (target > 0.5).astype(float),
        "regression": target,
        "multiclass": np.digitize(target, [0.0, 1.5]).astype(float),
        "ranking": np.digitize(target, [0.0, 1.5, 2.5]).astype(float),
    }[task]
    groups = np.sort(rng.integers(0, size // 20, size))
    return TrainingSet(matrix=matrix, labels=labels, feature_names=NAMES, categorical=(2,), groups=groups)


def test_trees_from_a_gpu_are_certified_on_the_cpu() -> None:
    for task in TASKS:
        model = XGBoostTrainer(2).train(rows_of(task), spec_of("auto", task))
        assert model.library == f"xgboost {xgb.__version__} (cuda)", task
        rows = reference_rows(model.thresholds, len(NAMES), seed=7)
        runtime = XGBoostRuntime(model.model, "model")
        try:
            reference = Reference(rows, model.raw_margin(rows), model.score(rows))
            assert certify(runtime, reference).bit_equal, task
        finally:
            runtime.close()


def test_the_same_rows_give_the_same_bytes() -> None:
    first, second = (XGBoostTrainer().train(rows_of(), spec_of("auto")) for _ in range(2))
    assert first.model == second.model


def test_a_model_from_a_gpu_is_as_good_as_one_from_the_cpu() -> None:
    held_out = rows_of(seed=2)

    def quality(model: TrainedModel) -> float:
        found = auc(held_out.labels, model.score(held_out.matrix))
        assert found is not None
        return found

    models = [XGBoostTrainer(2).train(rows_of(), spec_of(at)) for at in ("auto", "cpu")]
    assert abs(quality(models[0]) - quality(models[1])) < 0.01


def test_the_cpu_trains_while_the_device_has_no_memory() -> None:
    rows = rows_of(size=4_000_000)
    with little_memory(), capture_logs() as logs:
        model = XGBoostTrainer(8).train(rows, spec_of("auto"))
    assert model.library == f"xgboost {xgb.__version__}"
    assert [entry["event"] for entry in logs] == ["gpu_training_failed"]
