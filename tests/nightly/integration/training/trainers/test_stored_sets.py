"""Training sets in the storage: the model of the same rows in memory, to the last byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.spec import Gate, ModelSpec
from skewless.contract.vector import Matrix
from skewless.infra.platform.storage.objects import FolderStorage, StoredObject
from skewless.training.stored_matrix import StoredMatrix, read_batches, score_rows
from skewless.training.train import find_trainer
from skewless.training.trainers import xgboost as xgboost_trainer
from skewless.training.trainers.port import (
    AnyTrainingSet,
    StoredTrainingSet,
    StreamTrainer,
    TrainedModel,
    TrainingSet,
)
from tests.nightly.worlds.stored_matrices import store_matrix
from tests.unit.training.only_test_rows import make_spec

ALGORITHMS = ("lightgbm", "xgboost")
TASKS: dict[str, dict[str, Any]] = {
    "binary": {"gate": Gate(metric="auc")},
    "regression": {"task": "regression", "gate": Gate(metric="rmse")},
    "multiclass": {"task": "multiclass", "classes": ("a", "b", "c"), "gate": Gate(metric="auc_macro")},
    "ranking": {"task": "ranking", "group": "id", "gate": Gate(metric="ndcg")},
}
ROOT = Path(__file__).parents[5]
BLOCKS, BLOCK_ROWS = range(6), 50_000


def trainer_of(algorithm: Any, threads: int = 2) -> StreamTrainer:  # noqa: ANN401 - an Algorithm
    return cast("StreamTrainer", find_trainer(algorithm, threads))


def make_labels(matrix: NDArray[np.float64], task: str, rng: np.random.Generator) -> NDArray[np.float64]:
    signal = np.nan_to_num(matrix[:, 0]) + rng.normal(size=len(matrix))
    if task == "regression":
        return signal
    if task == "binary":
        return (signal > 0).astype(np.float64)
    return np.digitize(signal, [-0.5, 0.5]).astype(np.float64)


def both_ways(
    matrix: NDArray[np.float64], stored: StoredMatrix, spec: ModelSpec, *, has_weights: bool = False, seed: int = 0
) -> tuple[TrainedModel, TrainedModel]:
    """Return the model of rows in memory, and that of the same rows in the storage; a fifth validate it."""
    rng = np.random.default_rng(seed)
    labels = make_labels(matrix, spec.task, rng)
    is_trained = rng.random(len(matrix)) < 0.8
    weights = rng.random(len(matrix)) + 0.1 if has_weights and spec.task != "ranking" else None
    groups = rng.integers(0, max(1, len(matrix) // 8), len(matrix))

    def rows(mask: NDArray[np.bool_], *, is_stored: bool) -> AnyTrainingSet:
        fields: dict[str, Any] = {
            "labels": labels[mask],
            "feature_names": stored.names,
            "categorical": (1,),
            "weights": None if weights is None else weights[mask],
            "groups": groups[mask] if spec.task == "ranking" else None,
        }
        if is_stored:
            return StoredTrainingSet(matrix=stored.select(mask), **fields)
        return TrainingSet(matrix=np.ascontiguousarray(matrix[mask]), **fields)

    first, second = (
        trainer_of(spec.algorithm).train(
            rows(is_trained, is_stored=is_stored), spec, rows(~is_trained, is_stored=is_stored)
        )
        for is_stored in (False, True)
    )
    return first, second


def check_equal(first: TrainedModel, second: TrainedModel) -> None:
    assert second.model == first.model
    assert (second.learning, second.rounds) == (first.learning, first.rounds)
    assert (second.importance, second.splits, second.thresholds) == (first.importance, first.splits, first.thresholds)


def make_matrix(n: int, seed: int, kinds: tuple[str, ...] = ("plain", "few", "constant", "missing", "rare")) -> Matrix:
    """Return columns of each kind; the second has codes."""
    rng = np.random.default_rng(seed)
    columns = {
        "plain": rng.normal(size=n),
        "few": rng.integers(0, 4, n) / 2.0,
        "constant": np.full(n, 7.0),
        "missing": np.full(n, np.nan),
        "rare": np.where(rng.random(n) < 0.9, 0.0, rng.normal(size=n)),
        "huge": np.exp(20 * rng.normal(size=n)),
        "gaps": np.where(rng.random(n) < 0.4, np.nan, rng.normal(size=n)),
    }
    codes = rng.integers(0, 12, n).astype(np.float64)
    return np.stack(
        [columns["plain"], np.where(rng.random(n) < 0.1, np.nan, codes), *(columns[kind] for kind in kinds)], axis=1
    )


@settings(max_examples=1 + settings().max_examples // 8, deadline=None)
@given(
    kinds=st.lists(
        st.sampled_from(["plain", "few", "constant", "missing", "rare", "huge", "gaps"]), min_size=1, max_size=4
    ),
    n=st.integers(60, 700),
    cuts=st.lists(st.floats(0, 1), max_size=4),
    block_rows=st.sampled_from([7, 64, 1_000]),
    has_weights=st.booleans(),
    task=st.sampled_from(list(TASKS)),
    algorithm=st.sampled_from(ALGORITHMS),
    seed=st.integers(0, 5),
)
def test_any_schema_and_any_parts_give_the_model_of_memory(
    kinds: list[str],
    n: int,
    cuts: list[float],
    block_rows: int,
    has_weights: bool,  # noqa: FBT001 - drawn
    task: str,
    algorithm: str,
    seed: int,
) -> None:
    matrix = make_matrix(n, seed, tuple(kinds))
    spec = replace(make_spec(**TASKS[task]), algorithm=algorithm, rounds=4)
    with TemporaryDirectory() as folder:
        places = [int(cut * n) for cut in cuts] * 2  # each twice: an empty file
        stored = store_matrix(matrix, Path(folder), places, block_rows, {1: "w"})
        check_equal(*both_ways(matrix, stored, spec, has_weights=has_weights, seed=seed))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=[] if task in {"multiclass", "ranking"} else pytest.mark.soak) for task in TASKS]
)
def test_many_pages_give_the_model_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, task: str
) -> None:
    monkeypatch.setattr(xgboost_trainer, "_PAGE_BYTES", 8_000)
    matrix = make_matrix(1_500, 1)  # ten pages
    spec = replace(make_spec(**TASKS[task]), algorithm=algorithm, rounds=6, params={"early_stopping_rounds": 3})
    check_equal(*both_ways(matrix, store_matrix(matrix, tmp_path, [500, 501], 100, {1: "w"}), spec))
    assert not (tmp_path / "scratch").exists() or not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(
    ("algorithm", "params"),
    [
        ("lightgbm", {"bagging_fraction": 0.5, "bagging_freq": 1, "feature_fraction": 0.5}),
        ("lightgbm", {"data_random_seed": 9, "max_bin": 31, "min_data_in_leaf": 200}),
        ("lightgbm", {"boosting": "dart", "zero_as_missing": True}),
        ("lightgbm", {"linear_tree": True}),
        ("xgboost", {"subsample": 0.5, "colsample_bytree": 0.5}),
        ("xgboost", {"max_bin": 31, "grow_policy": "lossguide", "max_leaves": 7}),
        ("xgboost", {"booster": "dart", "rate_drop": 0.3}),
        ("xgboost", {"objective": "reg:absoluteerror"}),
    ],
)
def test_bins_of_a_sample_and_parameters_are_those_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, params: dict[str, Any]
) -> None:
    """Of more than 200,000 rows LightGBM samples those that decide its bins, by a seed of its own."""
    monkeypatch.setattr(xgboost_trainer, "_PAGE_BYTES", 2_000_000)
    if algorithm == "lightgbm":
        params = {"bin_construct_sample_cnt": 5_000, **params}
    matrix = make_matrix(20_000, 2)
    spec = replace(make_spec(**TASKS["regression"]), algorithm=algorithm, rounds=5, params=params, seed=3)
    check_equal(*both_ways(matrix, store_matrix(matrix, tmp_path, [9_000], 4_096, {1: "w"}), spec, has_weights=True))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_rejected_in_memory_is_rejected(tmp_path: Path, algorithm: str) -> None:
    matrix = make_matrix(500, 3)
    spec = replace(make_spec(**TASKS["binary"]), algorithm=algorithm, rounds=2)
    stored = store_matrix(matrix, tmp_path / "a", words={1: "w"})
    with pytest.raises(SourceError, match="are not both 0 and 1"):
        trainer_of(algorithm).train(
            StoredTrainingSet(matrix=stored, labels=np.ones(500), feature_names=stored.names), spec
        )
    infinite = np.where(matrix > 2.0, np.inf, matrix)
    if algorithm == "lightgbm":
        check_equal(*both_ways(infinite, store_matrix(infinite, tmp_path / "b", words={1: "w"}), spec))
        return
    for is_stored in (False, True):
        rows = StoredTrainingSet if is_stored else TrainingSet
        given_rows: Any = store_matrix(infinite, tmp_path / "c", words={1: "w"}) if is_stored else infinite
        labels = make_labels(matrix, "binary", np.random.default_rng(1))
        with pytest.raises(DefinitionError, match="is rejected by XGBoost"):
            trainer_of(algorithm).train(rows(matrix=given_rows, labels=labels, feature_names=stored.names), spec)


def test_rows_columns_words_and_orders_are_read_as_they_were_written(tmp_path: Path) -> None:
    matrix = make_matrix(1_000, 4)
    stored = store_matrix(matrix, tmp_path, [0, 300, 300, 999], 64, {1: "w"})
    assert stored.shape == matrix.shape
    assert np.concatenate(list(read_batches(stored))).tobytes() == matrix.tobytes()
    order = np.random.default_rng(1).permutation(1_000)
    shuffled = stored.select(order)
    assert shuffled.read(0, 1_000).tobytes() == matrix[order].tobytes()
    assert shuffled.select(np.arange(1_000) % 3 == 0).read(5, 9).tobytes() == matrix[order][::3][5:14].tobytes()
    for index in range(matrix.shape[1]):
        assert shuffled.read_column(index).tobytes() == matrix[order, index].tobytes()
    assert stored.select(matrix[:, 1] <= 2).read_words("f1") == {"w0", "w1", "w2"}
    assert score_rows(lambda rows: rows[:, 0], shuffled).tobytes() == matrix[order, 0].tobytes()
    assert stored.read(1_000, 5).shape == (0, matrix.shape[1])


MEASURE = """
import json, sys
from pathlib import Path
from tests.nightly.integration.training.trainers.test_stored_sets import train_once
print(json.dumps(train_once(sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "stored")))
"""


def train_once(algorithm: str, folder: Path, is_stored: bool) -> int:  # noqa: FBT001 - of a process of its own
    """Train on 300,000 rows x 30 columns, 72 MB; return by how many bytes the process has grown at most."""
    rng, blocks = np.random.default_rng(1), []
    columns, n = 30, len(BLOCKS) * BLOCK_ROWS
    stored = store_matrix(np.zeros((1, columns)), folder / "warm")
    if is_stored:
        block = np.round(rng.normal(size=(BLOCK_ROWS, columns)), 2)
        parts = [store_matrix(block + i, folder / str(i), block_rows=20_000) for i in BLOCKS]
        stored = join(parts)
    else:
        blocks = [rng.normal(size=(BLOCK_ROWS, columns)) for _ in BLOCKS]
    labels = (rng.random(n) < 0.5).astype(np.float64)
    # Small beside these rows, as they are beside large ones. LightGBM holds the sample of its bins three times.
    xgboost_trainer._PAGE_BYTES = 4_000_000
    sample = {"bin_construct_sample_cnt": 10_000} if algorithm == "lightgbm" else {}
    spec = replace(make_spec(**TASKS["binary"]), algorithm=algorithm, rounds=1, params={"max_bin": 15, **sample})
    trainer = trainer_of(algorithm, 1)
    few: Any = {"labels": np.arange(200) % 2 * 1.0, "feature_names": stored.names}
    trainer.train(TrainingSet(matrix=rng.normal(size=(200, columns)), **few), spec)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    fields: Any = {"labels": labels, "feature_names": stored.names}
    rows: AnyTrainingSet
    rows = (
        StoredTrainingSet(matrix=stored, **fields)
        if is_stored
        else TrainingSet(matrix=np.concatenate(blocks), **fields)
    )
    trainer.train(rows, spec)
    return _status("VmHWM") - before


def join(parts: list[StoredMatrix]) -> StoredMatrix:
    """Return the rows of several matrices as one."""
    files = [part._files for part in parts]
    whole = replace(
        files[0],
        storage=_Everywhere(parts),
        objects=tuple(each._replace(name=f"{i}:{each.name}") for i, one in enumerate(files) for each in one.objects),
        rows=tuple(rows for one in files for rows in one.rows),
    )
    return StoredMatrix(whole, parts[0].names, {})


class _Everywhere(FolderStorage):
    """A storage of the objects of several."""

    def __init__(self, parts: list[StoredMatrix]) -> None:
        self._storages = [part._files.storage for part in parts]

    def local_path(self, stored: StoredObject) -> Path:
        number, _, name = stored.name.partition(":")
        return self._storages[int(number)].local_path(stored._replace(name=name))


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1_024


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.soak
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_matrix_is_never_in_memory(tmp_path: Path, algorithm: str) -> None:
    grown = {}
    for way in ("stored", "memory"):
        command = [sys.executable, "-c", MEASURE, algorithm, str(tmp_path / way), way]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        grown[way] = json.loads(done.stdout)
    matrix_bytes = len(BLOCKS) * BLOCK_ROWS * 30 * 8
    # Bins, labels, gradients and a few blocks, but neither the numbers nor a copy of them.
    assert grown["stored"] < 0.9 * matrix_bytes, grown
    assert grown["memory"] > 1.2 * matrix_bytes, grown
