"""Models trained by the libraries themselves, with their own predictions as oracle."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import catboost
import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb
from _pytest.mark import ParameterSet

from skewless.infra.models.runtimes.candidates import open_runtime
from skewless.infra.models.runtimes.port import Matrix, Runtime, Scores, Vector
from skewless.training.trainers.lightgbm import split_thresholds as lightgbm_thresholds
from skewless.training.trainers.xgboost import split_thresholds as xgboost_thresholds
from skewless_catboost.trainer import export_json
from skewless_export.readers import read_trees
from tests.worlds.tree_models import catboost_table

FEATURES = 8
CATEGORY = 7


@dataclass(frozen=True)
class ModelCase:
    """A model in our runtime, beside the library that trained it; without leaves, the runtime refuses them."""

    runtime: Runtime
    raw: Callable[[Matrix], Scores]
    score: Callable[[Matrix], Scores]
    contributions: Callable[[Matrix], Scores]
    thresholds: list[tuple[int, float]]
    model_file: Path
    leaves: Callable[[Matrix], Scores] | None = None


def training_rows() -> tuple[Matrix, Vector]:
    rng = np.random.default_rng(11)
    rows = rng.normal(size=(3000, FEATURES))
    rows[:, CATEGORY] = rng.integers(0, 40, 3000)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    target = np.nansum(rows[:, :3], axis=1) + (np.nan_to_num(rows[:, CATEGORY]) % 3 == 0) * 2.0
    return rows, target + rng.normal(size=3000)


def labels_of(objective: str, target: Vector) -> Vector:
    if objective.startswith("reg"):
        return target
    if objective.startswith(("multi", "lambdarank", "rank")):
        return np.digitize(target, [-1.0, 0.0, 2.0]).astype(float)
    return (target > 0).astype(float)


def lightgbm_case(folder: Path, params: dict[str, Any], *, categorical: bool = False, stop: bool = False) -> ModelCase:
    rows, target = training_rows()
    label = labels_of(params["objective"], target)
    data = lgb.Dataset(
        rows[:2000],
        label[:2000],
        categorical_feature=[CATEGORY] if categorical else [],
        group=np.full(200, 10) if params["objective"] == "lambdarank" else None,
    )
    held_out = lgb.Dataset(rows[2000:], label[2000:], reference=data)
    booster = lgb.train(
        {"verbosity": -1, "num_threads": 1, "learning_rate": 0.3, **params},
        data,
        40,
        valid_sets=[held_out] if stop else [],
        callbacks=[lgb.early_stopping(3, verbose=False)] if stop else [],
    )
    assert (0 < booster.best_iteration < 40) is stop
    path = folder / "model.txt"
    path.write_text(booster.model_to_string())
    return ModelCase(
        runtime=open_runtime("lightgbm", path),
        raw=lambda matrix: np.asarray(booster.predict(matrix, raw_score=True)),
        score=lambda matrix: np.asarray(booster.predict(matrix)),
        contributions=lambda matrix: np.asarray(booster.predict(matrix, pred_contrib=True)),
        leaves=lambda matrix: np.asarray(booster.predict(matrix, pred_leaf=True)),
        thresholds=list(lightgbm_thresholds(booster.dump_model())),
        model_file=path,
    )


def xgboost_case(folder: Path, params: dict[str, Any], suffix: str = "json", *, categorical: bool = False) -> ModelCase:
    rows, target = training_rows()
    label = labels_of(params["objective"], target)
    types = ["c" if categorical and index == CATEGORY else "q" for index in range(FEATURES)]

    def matrix_of(matrix: Matrix, **more: Any) -> xgb.DMatrix:  # noqa: ANN401 - what DMatrix takes
        return xgb.DMatrix(matrix, feature_types=types, enable_categorical=categorical, **more)

    group = {"group": np.full(300, 10)} if params["objective"].startswith("rank") else {}
    booster = xgb.train({"nthread": 1, "verbosity": 0, **params}, matrix_of(rows, label=label, **group), 30)
    path = folder / f"model.{suffix}"
    booster.save_model(path)
    text = folder / "dump.json"
    booster.save_model(text)
    return ModelCase(
        runtime=open_runtime("xgboost", path),
        raw=lambda matrix: booster.inplace_predict(matrix, predict_type="margin").astype(np.float64),
        score=lambda matrix: booster.inplace_predict(matrix).astype(np.float64),
        contributions=lambda matrix: booster.predict(matrix_of(matrix), pred_contribs=True).astype(np.float64),
        leaves=lambda matrix: booster.predict(matrix_of(matrix), pred_leaf=True),
        thresholds=list(xgboost_thresholds(json.loads(text.read_bytes()))),
        model_file=path,
    )


def catboost_case(folder: Path, params: dict[str, Any], *, categorical: bool = False) -> ModelCase:
    rows, target = training_rows()
    columns = (CATEGORY,) if categorical else ()

    def pool_of(matrix: Matrix, label: Vector | None = None) -> catboost.Pool:
        return catboost.Pool(catboost_table(matrix, columns), label, cat_features=list(columns))

    options = {"thread_count": 1, "allow_writing_files": False, "logging_level": "Silent", "max_ctr_complexity": 1}
    model = catboost.CatBoost({**options, "iterations": 30, **params}).fit(pool_of(rows, (target > 0).astype(float)))
    path = folder / "model.json"
    path.write_bytes(export_json(model, [rows], columns))
    table = read_trees("catboost", path.read_bytes(), "the model")

    def predict(matrix: Matrix, kind: str) -> Scores:
        return np.ascontiguousarray(model.predict(pool_of(matrix), prediction_type=kind, thread_count=1))

    def explain(matrix: Matrix) -> Scores:
        if not len(matrix):
            return np.empty((0, FEATURES + 1))
        values = model.get_feature_importance(data=pool_of(matrix), type="ShapValues", thread_count=1)
        return np.ascontiguousarray(values)

    return ModelCase(
        runtime=open_runtime("catboost", path),
        raw=lambda matrix: predict(matrix, "RawFormulaVal"),
        score=lambda matrix: np.ascontiguousarray(predict(matrix, "Probability")[:, 1]),
        contributions=explain,
        thresholds=table.thresholds(),
        model_file=path,
    )


MAKERS: dict[str, Callable[[Path], ModelCase]] = {
    "lightgbm binary": lambda folder: lightgbm_case(folder, {"objective": "binary"}),
    "lightgbm regression": lambda folder: lightgbm_case(folder, {"objective": "regression"}),
    "lightgbm categorical": lambda folder: lightgbm_case(
        folder, {"objective": "binary", "min_data_per_group": 5, "max_cat_to_onehot": 2}, categorical=True
    ),
    "lightgbm best iteration": lambda folder: lightgbm_case(folder, {"objective": "binary"}, stop=True),
    "lightgbm dart": lambda folder: lightgbm_case(folder, {"objective": "binary", "boosting": "dart"}),
    "lightgbm zero as missing": lambda folder: lightgbm_case(folder, {"objective": "binary", "zero_as_missing": True}),
    "lightgbm multiclass": lambda folder: lightgbm_case(
        folder, {"objective": "multiclass", "num_class": 4, "min_data_per_group": 5}, categorical=True
    ),
    "lightgbm ranking": lambda folder: lightgbm_case(folder, {"objective": "lambdarank"}, categorical=True),
    "catboost binary": lambda folder: catboost_case(folder, {"loss_function": "Logloss"}),
    "catboost categorical": lambda folder: catboost_case(
        folder, {"loss_function": "Logloss", "nan_mode": "Max"}, categorical=True
    ),
    "xgboost binary": lambda folder: xgboost_case(folder, {"objective": "binary:logistic"}),
    "xgboost ubj": lambda folder: xgboost_case(folder, {"objective": "binary:logistic"}, "ubj"),
    "xgboost regression": lambda folder: xgboost_case(folder, {"objective": "reg:squarederror"}),
    "xgboost categorical": lambda folder: xgboost_case(folder, {"objective": "binary:logistic"}, categorical=True),
    "xgboost one category a split": lambda folder: xgboost_case(
        folder, {"objective": "binary:logistic", "max_cat_to_onehot": 100}, categorical=True
    ),
    "xgboost multiclass": lambda folder: xgboost_case(
        folder, {"objective": "multi:softprob", "num_class": 4}, categorical=True
    ),
    "xgboost ranking": lambda folder: xgboost_case(folder, {"objective": "rank:ndcg"}, categorical=True),
    "xgboost dart": lambda folder: xgboost_case(
        folder, {"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.3}
    ),
}


HARDEST = {"lightgbm multiclass", "catboost categorical", "xgboost multiclass"}  # categories, and several outputs


def names_of(libraries: Collection[str], without: Collection[str] = ()) -> list[str | ParameterSet]:
    """Return the models of libraries; `make test` has the hardest of each, and `make soak` the others."""
    soak = pytest.mark.soak
    names = [name for name in sorted(MAKERS) if name.partition(" ")[0] in libraries and name not in without]
    return [name if name in HARDEST else pytest.param(name, marks=soak) for name in names]
