"""From rows to a certified model: both libraries, against themselves read back from the file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb

from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.labels import LabelSource
from skewless.contract.spec import Algorithm, ModelSpec, Split, Task
from skewless.infra.models.packages.package import PackageContents, open_package
from skewless.infra.models.packages.writer import write_package
from skewless.infra.models.runtimes.candidates import open_runtime
from skewless.infra.models.runtimes.certification import Reference, certify, reference_rows
from skewless.infra.models.runtimes.port import Matrix, Scores
from skewless.training.curves import profile_features
from skewless.training.train import find_trainer
from skewless.training.trainers.port import TrainedModel, TrainingSet
from skewless.validation.evaluation.evaluation import evaluate
from skewless.validation.evaluation.metrics import auc
from tests.worlds.packages import store_at

ROOT = Path(__file__).parents[4]
NAMES = ("plain", "noise", 'odd "name": [1]', "kind")
ALGORITHMS: list[Algorithm] = ["lightgbm", "xgboost", "sklearn", "catboost"]
KINDS: list[tuple[Algorithm, Task]] = [
    ("lightgbm", "binary"),
    ("lightgbm", "regression"),
    ("lightgbm", "multiclass"),
    ("lightgbm", "ranking"),
    ("xgboost", "binary"),
    ("xgboost", "regression"),
    ("xgboost", "multiclass"),
    ("xgboost", "ranking"),
    ("sklearn", "binary"),
    ("sklearn", "regression"),
    ("catboost", "binary"),
    ("catboost", "regression"),
    ("catboost", "multiclass"),
    ("catboost", "ranking"),
]
PARAMS = {"learning_rate": 0.3, "max_depth": 4}
CLASSES = ("low", "middle", "high")


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
        classes=CLASSES if task == "multiclass" else (),
        group="query" if task == "ranking" else None,
    )


def rows_of(task: Task, seed: int = 1, size: int = 3000) -> TrainingSet:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(size, 4))
    matrix[:, 3] = rng.integers(0, 30, size)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    target = np.nan_to_num(matrix[:, 0]) + 2.0 * (np.nan_to_num(matrix[:, 3]) % 3 == 0) + rng.normal(size=size) / 2
    labels = {
        "regression": target,
        "binary": (target > 0.5).astype(float),
        "multiclass": np.digitize(target, [0.0, 1.5]).astype(float),
        "ranking": np.digitize(target, [0.0, 1.5, 2.5]).astype(float),
    }[task]
    groups = rng.integers(0, size // 10, size)
    return TrainingSet(matrix=matrix, labels=labels, feature_names=NAMES, categorical=(3,), groups=groups)


def library_scores(model: TrainedModel, path: Path) -> Callable[[Matrix], Scores]:
    """Return predictions of the library itself, from the file."""
    path.write_bytes(model.model)
    if model.algorithm == "lightgbm":
        booster = lgb.Booster(model_file=path)
        return lambda matrix: np.asarray(booster.predict(matrix, raw_score=True))
    other = xgb.Booster(model_file=path)
    types = ["q", "q", "q", "c"]
    return lambda matrix: other.predict(
        xgb.DMatrix(matrix, feature_types=types, enable_categorical=True), output_margin=True
    ).astype(np.float64)


@pytest.mark.parametrize(("algorithm", "task"), [kind for kind in KINDS if kind[0] in ("lightgbm", "xgboost")])
def test_the_file_predicts_what_the_trained_model_predicts(tmp_path: Path, algorithm: Algorithm, task: Task) -> None:
    rows = rows_of(task)
    model = find_trainer(algorithm).train(rows, spec_of(algorithm, task=task))
    reread = library_scores(model, tmp_path / model.file_name)
    assert np.array_equal(model.raw_margin(rows.matrix).view(np.int64), reread(rows.matrix).view(np.int64))
    assert model.rounds == 30
    assert model.library.startswith(f"{algorithm} ")


@pytest.mark.parametrize(("algorithm", "task"), KINDS)
def test_a_packaged_model_is_certified_where_it_is_loaded(tmp_path: Path, algorithm: Algorithm, task: Task) -> None:
    rows, unseen, spec = rows_of(task), rows_of(task, seed=2), spec_of(algorithm, task=task)
    model = find_trainer(algorithm).train(rows, spec)
    reference = reference_rows(model.thresholds, len(NAMES), spec.seed)
    write_package(
        store_at(tmp_path),
        "late",
        PackageContents(
            model_name=model.file_name,
            model=model.model,
            spec=spec,
            plan={},
            reference=Reference(reference, model.raw_margin(reference), model.score(reference)),
            profile=profile_features(rows.matrix, NAMES),
            metrics=evaluate(unseen.labels, model.score(unseen.matrix), task=task, groups=unseen.groups),
            fingerprint={},
        ),
    )
    package = open_package(store_at(tmp_path), "late", "000001")
    runtime = open_runtime(package.spec.algorithm, package.model_file)
    assert certify(runtime, package.reference, tolerance=package.spec.tolerance).bit_equal
    assert np.array_equal(runtime.score(unseen.matrix).view(np.int64), model.score(unseen.matrix).view(np.int64))
    assert runtime.n_outputs == (3 if task == "multiclass" else 1)
    metric = {"binary": "auc", "regression": "rmse", "multiclass": "auc_macro", "ranking": "ndcg"}[task]
    better = 1.0 if task != "regression" else -1.0
    assert better * package.metrics[metric] > better * package.metrics[f"baseline_{metric}"] + 0.1
    runtime.close()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_model_learns(algorithm: Algorithm) -> None:
    rows, unseen = rows_of("binary"), rows_of("binary", seed=2)
    model = find_trainer(algorithm).train(rows, spec_of(algorithm))
    found = auc(unseen.labels, model.score(unseen.matrix))
    assert found is not None
    assert found > 0.85
    assert tuple(model.importance) == NAMES
    assert model.importance["plain"] > 3 * model.importance["noise"]
    assert {feature for feature, _ in model.thresholds} == {0, 1, 2, 3}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_rows_and_spec_give_the_same_bytes(algorithm: Algorithm) -> None:
    params = {
        "lightgbm": {"subsample": 0.7, "bagging_freq": 1},
        "xgboost": {"subsample": 0.7},
        "sklearn": {"max_features": 0.5},
        "catboost": {"rsm": 0.5},
    }
    rows, spec = rows_of("binary", size=20_000), spec_of(algorithm, params=params[algorithm])
    first, again = (find_trainer(algorithm, threads).train(rows, spec).model for threads in (1, 2))
    other = find_trainer(algorithm).train(rows, replace(spec, seed=8)).model
    assert first == again
    assert first != other


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_weights_count_like_repeated_rows(algorithm: Algorithm) -> None:
    rows = rows_of("binary")
    spec = spec_of(algorithm, params={"max_depth": 3, "learning_rate": 0.1})
    plain = find_trainer(algorithm).train(rows, spec).score(rows.matrix).mean()
    heavy = find_trainer(algorithm).train(rows, replace(spec, class_weight=4.0)).score(rows.matrix).mean()
    same = replace(rows, weights=np.where(rows.labels == 1, 4.0, 1.0))
    weighted = find_trainer(algorithm).train(same, spec)
    assert heavy > plain + 0.1
    assert weighted.model == find_trainer(algorithm).train(rows, replace(spec, class_weight=4.0)).model


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_early_stopping_keeps_the_best_rounds_only(tmp_path: Path, algorithm: Algorithm) -> None:
    rows, held_out = rows_of("binary", size=800), rows_of("binary", seed=2, size=800)
    # By default, CatBoost estimates leaves in more steps from 200 rounds on.
    params: dict[str, object] = {"learning_rate": 0.5}
    params |= {"leaf_estimation_iterations": 1} if algorithm == "catboost" else {}
    spec = spec_of(algorithm, rounds=200, params={**params, "early_stopping_rounds": 3})
    model = find_trainer(algorithm).train(rows, spec, held_out)
    assert model.rounds < 50
    short = find_trainer(algorithm).train(rows, spec_of(algorithm, rounds=model.rounds, params=params))
    bits = model.raw_margin(rows.matrix).view(np.int64)
    assert np.array_equal(bits, short.raw_margin(rows.matrix).view(np.int64))
    path = tmp_path / model.file_name
    path.write_bytes(model.model)
    runtime = open_runtime(algorithm, path)
    assert np.array_equal(runtime.margin(rows.matrix).view(np.int64), bits)
    runtime.close()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_category_codes_are_split_as_categories(algorithm: Algorithm) -> None:
    """The label of a code is chance, so only a tree that picks codes out learns it, and not with two leaves."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 40, 4000).astype(float)
    labels = rng.integers(0, 2, 40).astype(float)[codes.astype(int)]
    rows = TrainingSet(matrix=codes[:, None], labels=labels, feature_names=("kind",), categorical=(0,))
    params: dict[Algorithm, dict[str, object]] = {
        "lightgbm": {"max_depth": 1, "max_cat_threshold": 64, "min_data_per_group": 1, "cat_smooth": 0.0},
        "xgboost": {"max_depth": 1, "max_cat_threshold": 64},
        "sklearn": {"max_depth": 1},
        "catboost": {"max_depth": 1},
    }
    spec = spec_of(algorithm, params=params[algorithm], rounds=5)
    model = find_trainer(algorithm).train(rows, spec)
    assert auc(labels, model.score(rows.matrix)) == 1.0
    numeric = find_trainer(algorithm).train(replace(rows, categorical=()), spec)
    assert auc(labels, numeric.score(rows.matrix)) != 1.0
    assert all(code == int(code) for _, code in model.thresholds)
    assert len(model.thresholds) > 5


@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost", "catboost"])
def test_a_ranking_model_does_not_depend_on_where_its_groups_lie(algorithm: Algorithm) -> None:
    rows, spec = rows_of("ranking"), spec_of(algorithm, task="ranking")
    assert rows.groups is not None
    order = np.argsort(rows.groups, kind="stable")
    together = replace(rows, matrix=rows.matrix[order], labels=rows.labels[order], groups=rows.groups[order])
    first, again = (find_trainer(algorithm).train(given, spec).model for given in (rows, together))
    assert first == again
    shuffled = replace(rows, groups=rows.groups[::-1].copy())
    assert find_trainer(algorithm).train(shuffled, spec).model != first


@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost", "catboost"])
def test_early_stopping_of_every_task(algorithm: Algorithm) -> None:
    for task in ("multiclass", "ranking"):
        rows, held_out = rows_of(task, size=800), rows_of(task, seed=2, size=800)
        spec = spec_of(algorithm, task=task, rounds=200, params={"early_stopping_rounds": 3, "learning_rate": 0.5})
        assert find_trainer(algorithm).train(rows, spec, held_out).rounds < 100


def test_scikit_learn_trains_two_tasks_and_losses_without_a_link() -> None:
    with pytest.raises(DefinitionError, match=r"'late' task: cannot be trained by sklearn.*'ranking'"):
        find_trainer("sklearn").train(rows_of("ranking", size=100), spec_of("sklearn", task="ranking"))
    spec = spec_of("sklearn", task="regression", params={"loss": "poisson"})
    with pytest.raises(DefinitionError, match=r"loss that the runtime.*'poisson'"):
        find_trainer("sklearn").train(rows_of("regression", size=100), spec)
    absolute = spec_of("sklearn", task="regression", params={"loss": "absolute_error"})
    assert find_trainer("sklearn").train(rows_of("regression", size=100), absolute).rounds == 30


def test_scikit_learn_refuses_more_categories_than_it_can_hold() -> None:
    rows = replace(rows_of("binary"), matrix=np.arange(12_000.0).reshape(3000, 4))
    with pytest.raises(DefinitionError, match=r"rejected by scikit-learn.*cardinality"):
        find_trainer("sklearn").train(rows, spec_of("sklearn"))


@pytest.mark.parametrize("algorithm", ["xgboost", "sklearn"])
def test_infinite_values_do_not_train_every_library(algorithm: Algorithm) -> None:
    rows = rows_of("binary", size=300)
    infinite = replace(rows, matrix=np.where(rows.matrix > 2.0, np.inf, rows.matrix))
    with pytest.raises((DefinitionError, SourceError), match="inf"):
        find_trainer(algorithm).train(infinite, spec_of(algorithm))
    for other in ("lightgbm", "catboost"):
        assert find_trainer(other).train(infinite, spec_of(other)).rounds == 30


def test_a_scikit_learn_model_is_scored_without_scikit_learn(tmp_path: Path) -> None:
    model = find_trainer("sklearn").train(rows_of("binary"), spec_of("sklearn"))
    path = tmp_path / model.file_name
    path.write_bytes(model.model)
    code = (
        "import sys; from pathlib import Path; import numpy as np;"
        "from skewless.infra.models.runtimes.candidates import open_runtime;"
        f"score = open_runtime('sklearn', Path({str(path)!r})).score(np.zeros((1, 4)))[0];"
        "print(score.hex(), 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [float(model.score(np.zeros((1, 4)))[0]).hex(), "False"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_is_quiet(algorithm: Algorithm, capfd: pytest.CaptureFixture[str]) -> None:
    rows = rows_of("binary", size=200)
    constant = replace(rows, matrix=np.concatenate([rows.matrix[:, :3], np.zeros((200, 1))], axis=1))
    find_trainer(algorithm).train(constant, spec_of(algorithm), rows_of("binary", seed=2, size=50))
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_arguments_are_not_changed(algorithm: Algorithm) -> None:
    rows, spec = rows_of("binary", size=300), spec_of(algorithm)
    before = (rows.matrix.tobytes(), rows.labels.tobytes(), dict(spec.params))
    find_trainer(algorithm).train(rows, spec)
    assert (rows.matrix.tobytes(), rows.labels.tobytes(), dict(spec.params)) == before


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_the_library_refuses_is_named(algorithm: Algorithm) -> None:
    name = "loss" if algorithm == "sklearn" else "objective"
    spec = spec_of(algorithm, params={name: "no_such_objective"})
    with pytest.raises(DefinitionError, match=r"late.*no_such_objective"):
        find_trainer(algorithm).train(rows_of("binary", size=100), spec)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_class_is_refused(algorithm: Algorithm) -> None:
    rows = replace(rows_of("binary", size=100), labels=np.ones(100))
    with pytest.raises(SourceError, match="not both 0 and 1"):
        find_trainer(algorithm).train(rows, spec_of(algorithm))


@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost", "sklearn"])
def test_rows_too_few_to_split_still_give_a_model(tmp_path: Path, algorithm: Algorithm) -> None:
    rows = TrainingSet(matrix=np.zeros((4, 2)), labels=np.array([0.0, 1.0, 1.0, 1.0]), feature_names=("a", "b"))
    model = find_trainer(algorithm).train(rows, spec_of(algorithm))
    assert model.thresholds == ()
    reference = reference_rows(model.thresholds, 2, 7)
    path = tmp_path / model.file_name
    path.write_bytes(model.model)
    runtime = open_runtime(algorithm, path)
    expected = Reference(reference, model.raw_margin(reference), model.score(reference))
    assert certify(runtime, expected).bit_equal
    runtime.close()
