"""From rows to a certified model: both libraries, against themselves read back from the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb

from infra.packages.package import PackageContents, open_package
from infra.packages.writer import write_package
from infra.runtimes.certification import certify
from infra.runtimes.load import open_runtime
from infra.runtimes.port import Matrix, Vector
from infra.runtimes.reference import Reference, reference_rows
from skewless.errors import DefinitionError, SourceError
from skewless.spec import Algorithm, LabelSource, ModelSpec, Split, Task
from training.evaluation import auc, evaluate
from training.profile import profile
from training.trainers.choice import trainer_for
from training.trainers.port import TrainedModel, TrainingSet

NAMES = ("plain", "noise", 'odd "name": [1]', "kind")
ALGORITHMS: list[Algorithm] = ["lightgbm", "xgboost"]
TASKS: list[Task] = ["binary", "regression"]
PARAMS = {"learning_rate": 0.3, "max_depth": 4}


def spec_of(
    algorithm: Algorithm, *, task: Task = "binary", params: Mapping[str, object] = PARAMS, rounds: int = 30
) -> ModelSpec:
    return ModelSpec(
        name="late",
        service="s",
        labels=LabelSource(path="p", event_time="e", known_time="k", label="y"),
        algorithm=algorithm,
        task=task,
        split=Split(test=timedelta(days=1)),
        params=params,
        rounds=rounds,
    )


def rows_of(task: Task, seed: int = 1, size: int = 3000) -> TrainingSet:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(size, 4))
    matrix[:, 3] = rng.integers(0, 30, size)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    target = np.nan_to_num(matrix[:, 0]) + 2.0 * (np.nan_to_num(matrix[:, 3]) % 3 == 0) + rng.normal(size=size) / 2
    labels = target if task == "regression" else (target > 0.5).astype(float)
    return TrainingSet(matrix=matrix, labels=labels, feature_names=NAMES, categorical=(3,))


def library_scores(model: TrainedModel, path: Path) -> Callable[[Matrix], Vector]:
    """Return predictions of the library itself, from the file."""
    path.write_bytes(model.model)
    if model.algorithm == "lightgbm":
        booster = lgb.Booster(model_file=path)
        return lambda matrix: np.asarray(booster.predict(matrix, raw_score=True))
    other = xgb.Booster(model_file=path)
    return lambda matrix: other.predict(xgb.DMatrix(matrix), output_margin=True).astype(np.float64)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_file_predicts_what_the_trained_model_predicts(tmp_path: Path, algorithm: Algorithm, task: Task) -> None:
    rows = rows_of(task)
    model = trainer_for(algorithm).train(rows, spec_of(algorithm, task=task))
    reread = library_scores(model, tmp_path / model.file_name)
    assert np.array_equal(model.raw_margin(rows.matrix).view(np.int64), reread(rows.matrix).view(np.int64))
    assert model.rounds == 30
    assert model.library.startswith(f"{algorithm} ")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_packaged_model_is_certified_where_it_is_loaded(tmp_path: Path, algorithm: Algorithm, task: Task) -> None:
    rows, unseen, spec = rows_of(task), rows_of(task, seed=2), spec_of(algorithm, task=task)
    model = trainer_for(algorithm).train(rows, spec)
    reference = reference_rows(model.thresholds, len(NAMES), spec.seed)
    write_package(
        tmp_path,
        "late",
        PackageContents(
            model_name=model.file_name,
            model=model.model,
            spec=spec,
            plan={},
            reference=Reference(reference, model.raw_margin(reference), model.score(reference)),
            profile=profile(rows.matrix, NAMES),
            metrics=evaluate(unseen.labels, model.score(unseen.matrix), task=task),
            fingerprint={},
        ),
    )
    package = open_package(tmp_path, "late", "000001")
    runtime = open_runtime(package.spec.algorithm, package.model_file)
    assert certify(runtime, package.reference, tolerance=package.spec.tolerance).bit_equal
    assert np.array_equal(runtime.score(unseen.matrix).view(np.int64), model.score(unseen.matrix).view(np.int64))
    assert package.metrics["rmse" if task == "regression" else "brier"] < 0.7
    runtime.close()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_model_learns(algorithm: Algorithm) -> None:
    rows, unseen = rows_of("binary"), rows_of("binary", seed=2)
    model = trainer_for(algorithm).train(rows, spec_of(algorithm))
    found = auc(unseen.labels, model.score(unseen.matrix))
    assert found is not None
    assert found > 0.85
    assert tuple(model.importance) == NAMES
    assert model.importance["plain"] > 3 * model.importance["noise"]
    assert {feature for feature, _ in model.thresholds} == {0, 1, 2, 3}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_rows_and_spec_give_the_same_bytes(algorithm: Algorithm) -> None:
    rows, spec = rows_of("binary", size=20_000), spec_of(algorithm, params={"subsample": 0.7, "bagging_freq": 1})
    if algorithm == "xgboost":
        spec = replace(spec, params={"subsample": 0.7})
    first, again = (trainer_for(algorithm, threads).train(rows, spec).model for threads in (1, 2))
    other = trainer_for(algorithm).train(rows, replace(spec, seed=8)).model
    assert first == again
    assert first != other


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_weights_count_like_repeated_rows(algorithm: Algorithm) -> None:
    rows = rows_of("binary")
    spec = spec_of(algorithm, params={"max_depth": 3, "learning_rate": 0.1})
    plain = trainer_for(algorithm).train(rows, spec).score(rows.matrix).mean()
    heavy = trainer_for(algorithm).train(rows, replace(spec, class_weight=4.0)).score(rows.matrix).mean()
    same = replace(rows, weights=np.where(rows.labels == 1, 4.0, 1.0))
    weighted = trainer_for(algorithm).train(same, spec)
    assert heavy > plain + 0.1
    assert weighted.model == trainer_for(algorithm).train(rows, replace(spec, class_weight=4.0)).model


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_early_stopping_keeps_the_best_rounds_only(tmp_path: Path, algorithm: Algorithm) -> None:
    rows, held_out = rows_of("binary", size=800), rows_of("binary", seed=2, size=800)
    params = {"early_stopping_rounds": 3, "learning_rate": 0.5}
    spec = spec_of(algorithm, rounds=200, params=params)
    model = trainer_for(algorithm).train(rows, spec, held_out)
    assert model.rounds < 50
    short = trainer_for(algorithm).train(rows, spec_of(algorithm, rounds=model.rounds, params={"learning_rate": 0.5}))
    bits = model.raw_margin(rows.matrix).view(np.int64)
    assert np.array_equal(bits, short.raw_margin(rows.matrix).view(np.int64))
    path = tmp_path / model.file_name
    path.write_bytes(model.model)
    runtime = open_runtime(algorithm, path)
    assert np.array_equal(runtime.margin(rows.matrix).view(np.int64), bits)
    runtime.close()


def test_lightgbm_splits_category_codes_as_categories() -> None:
    model = trainer_for("lightgbm").train(rows_of("binary"), spec_of("lightgbm"))
    codes = [value for feature, value in model.thresholds if feature == 3]
    assert len(codes) > 5
    assert all(code == int(code) for code in codes)
    assert re.search(rb"num_cat=[1-9]", model.model)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_is_quiet(algorithm: Algorithm, capfd: pytest.CaptureFixture[str]) -> None:
    rows = rows_of("binary", size=200)
    constant = replace(rows, matrix=np.concatenate([rows.matrix[:, :3], np.zeros((200, 1))], axis=1))
    trainer_for(algorithm).train(constant, spec_of(algorithm), rows_of("binary", seed=2, size=50))
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_arguments_are_not_changed(algorithm: Algorithm) -> None:
    rows, spec = rows_of("binary", size=300), spec_of(algorithm)
    before = (rows.matrix.tobytes(), rows.labels.tobytes(), dict(spec.params))
    trainer_for(algorithm).train(rows, spec)
    assert (rows.matrix.tobytes(), rows.labels.tobytes(), dict(spec.params)) == before


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_the_library_refuses_is_named(algorithm: Algorithm) -> None:
    spec = spec_of(algorithm, params={"objective": "no_such_objective"})
    with pytest.raises(DefinitionError, match=r"late.*no_such_objective"):
        trainer_for(algorithm).train(rows_of("binary", size=100), spec)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_class_is_refused(algorithm: Algorithm) -> None:
    rows = replace(rows_of("binary", size=100), labels=np.ones(100))
    with pytest.raises(SourceError, match="not both 0 and 1"):
        trainer_for(algorithm).train(rows, spec_of(algorithm))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rows_too_few_to_split_still_give_a_model(tmp_path: Path, algorithm: Algorithm) -> None:
    rows = TrainingSet(matrix=np.zeros((4, 2)), labels=np.array([0.0, 1.0, 1.0, 1.0]), feature_names=("a", "b"))
    model = trainer_for(algorithm).train(rows, spec_of(algorithm))
    assert model.thresholds == ()
    reference = reference_rows(model.thresholds, 2, 7)
    path = tmp_path / model.file_name
    path.write_bytes(model.model)
    runtime = open_runtime(algorithm, path)
    expected = Reference(reference, model.raw_margin(reference), model.score(reference))
    assert certify(runtime, expected).bit_equal
    runtime.close()
