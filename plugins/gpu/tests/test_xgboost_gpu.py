"""Training with XGBoost where the driver shows a GPU: a planted driver, and XGBoost told to do the GPU's part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import pytest
import xgboost as xgb
from structlog.testing import capture_logs

from skewless.contract.errors import DefinitionError
from skewless.contract.labels import LabelSource
from skewless.contract.spec import ModelSpec, Split
from skewless.training.trainers.port import TrainedModel, TrainingSet
from skewless.training.trainers.xgboost import XGBoostTrainer
from skewless_gpu import cuda, xgboost_cuda

H100 = cuda.Device(name="H100", memory=1 << 36, capability="9.0")
HERE = cuda.Driver(devices=(H100,), version="13.0")
ABSENT = cuda.Driver(problem="no NVIDIA driver is installed")
OUT_OF_MEMORY = (
    "Memory allocation error on worker 0: std::bad_alloc: cudaErrorMemoryAllocation: out of memory\nStack trace"
)
PARAMS: Mapping[str, object] = {"learning_rate": 0.3, "max_depth": 4}


class Gpu:
    """What stands in for ``xgb.train``: notes the device of each training, fails on a GPU if it is told to."""

    def __init__(self, problem: str | None = None) -> None:
        self.asked: list[str] = []
        self.problem = problem
        self._train = xgb.train

    def train(self, options: dict[str, Any], *given: Any, **named: Any) -> xgb.Booster:  # noqa: ANN401 - XGBoost's
        self.asked.append(options["device"])
        if options["device"] == "cuda" and self.problem is not None:
            raise xgb.core.XGBoostError(self.problem)
        return self._train({**options, "device": "cpu"}, *given, **named)


def planted(
    monkeypatch: pytest.MonkeyPatch,
    *,
    driver: cuda.Driver = HERE,
    built: bool = True,
    problem: str | None = None,
) -> Gpu:
    gpu = Gpu(problem)
    monkeypatch.setattr(xgboost_cuda, "driver", lambda: driver)
    monkeypatch.setattr(xgboost_cuda, "has_cuda", lambda: built)
    monkeypatch.setattr(xgb, "train", gpu.train)
    return gpu


def spec_of(
    device: Literal["auto", "cpu", "cuda"] = "auto", *, params: Mapping[str, object] = PARAMS, rounds: int = 20
) -> ModelSpec:
    return ModelSpec(
        name="late",
        service="s",
        labels=LabelSource(path="p", event_time="e", known_time="k", label="y"),
        algorithm="xgboost",
        split=Split(test=timedelta(days=1)),
        params=params,
        rounds=rounds,
        device=device,
    )


def rows_of(seed: int) -> TrainingSet:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(600, 3))
    matrix[:, 2] = rng.integers(0, 9, 600)
    labels = (matrix[:, 0] + (matrix[:, 2] % 3 == 0) + rng.normal(size=600) / 2 > 0.5).astype(float)
    return TrainingSet(matrix=matrix, labels=labels, feature_names=("a", "b", "kind"), categorical=(2,))


def train(device: Literal["auto", "cpu", "cuda"] = "auto") -> TrainedModel:
    return XGBoostTrainer().train(rows_of(1), spec_of(device))


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_where_there_is_a_gpu_the_trees_grow_there(
    device: Literal["auto", "cuda"], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = planted(monkeypatch)
    assert train(device).library == f"xgboost {xgb.__version__} (cuda)"
    assert gpu.asked == ["cuda"]


@pytest.mark.parametrize(
    ("device", "driver", "built"),
    [("cpu", HERE, True), ("auto", ABSENT, True), ("cuda", ABSENT, True), ("auto", HERE, False), ("cuda", HERE, False)],
)
def test_the_cpu_trains_where_it_is_asked_for_or_nothing_else_can(
    device: Literal["auto", "cpu", "cuda"],
    driver: cuda.Driver,
    built: bool,  # noqa: FBT001 - pytest gives it by name
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = planted(monkeypatch, driver=driver, built=built)
    assert train(device).library == f"xgboost {xgb.__version__}"
    assert gpu.asked == ["cpu"]


def test_a_model_from_the_gpu_answers_from_the_cpu_with_the_bits_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch)
    read: list[dict[str, Any]] = []
    booster = xgb.Booster

    def noting(params: dict[str, Any] | None = None, *given: Any, **named: Any) -> xgb.Booster:  # noqa: ANN401
        read.append(dict(params or {}))
        return booster(params, *given, **named)

    monkeypatch.setattr(xgb, "Booster", noting)
    model = train()
    assert read[-1]["device"] == "cpu"
    file = booster({"nthread": 1}, model_file=bytearray(model.model))
    matrix = rows_of(2).matrix
    assert np.array_equal(model.raw_margin(matrix), file.inplace_predict(matrix, predict_type="margin"))
    assert np.array_equal(model.score(matrix), file.inplace_predict(matrix))
    assert model.rounds == 20
    assert set(model.importance) == {"a", "b", "kind"}
    assert model.splits["kind"] > 0


def test_early_stopping_keeps_the_best_rounds_of_a_model_from_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch)
    spec = spec_of(params={**PARAMS, "early_stopping_rounds": 3}, rounds=200)
    model = XGBoostTrainer().train(rows_of(1), spec, rows_of(2))
    (losses,) = model.learning.values()
    assert model.rounds == int(np.argmin(losses)) + 1 < 200
    trees = json.loads(model.model)["learner"]["gradient_booster"]["model"]["trees"]
    assert len(trees) == model.rounds


def test_a_gpu_that_fails_is_said_once_and_the_cpu_trains_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = planted(monkeypatch, problem=OUT_OF_MEMORY)
    trainer = XGBoostTrainer()
    with capture_logs() as logs:
        models = [trainer.train(rows_of(1), spec_of()) for _ in range(2)]
    assert gpu.asked == ["cuda", "cpu", "cpu"]
    assert [model.library for model in models] == [f"xgboost {xgb.__version__}"] * 2
    assert models[0].model == train("cpu").model
    (said,) = [entry for entry in logs if entry["event"] == "gpu_training_failed"]
    assert said["log_level"] == "warning"
    assert said["reason"] == OUT_OF_MEMORY.partition("\n")[0]
    assert (said["model"], said["trained_on"]) == ("late", "cpu")


def test_a_parameter_that_is_wrong_anywhere_is_no_failure_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = planted(monkeypatch)
    trainer = XGBoostTrainer()
    with capture_logs() as logs, pytest.raises(DefinitionError, match="max_depth"):
        trainer.train(rows_of(1), spec_of(params={"max_depth": -3}))
    assert logs == []
    trainer.train(rows_of(1), spec_of())
    assert gpu.asked == ["cuda", "cpu", "cuda"]


def test_the_device_is_a_field_of_the_spec_and_no_parameter() -> None:
    with pytest.raises(DefinitionError, match=r"ModelSpec\.device"):
        XGBoostTrainer().train(rows_of(1), spec_of(params={"device": "cuda"}))


def test_the_installed_xgboost_says_whether_it_is_built_with_cuda() -> None:
    assert xgboost_cuda.has_cuda() is bool(xgb.build_info()["USE_CUDA"])
