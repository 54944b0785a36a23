"""Random tree models of every kind, rows that are hard for them, and a slow reading of the tree table as an oracle."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import catboost
import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost as xgb
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from skewless.infra.models.runtimes.certification import neighbours
from skewless_catboost.trainer import export_json
from skewless_export.table import TreeFacts, TreeNode, TreeTable
from skewless_sklearn.trainer import export_trees
from skewless_sklearn.tree_arrays import TreeArraysRuntime

Matrix = npt.NDArray[np.float64]
_SPECIAL = [0.0, -0.0, 5e-324, -5e-324, 1e-35, -1e-35, np.inf, -np.inf, np.nan, 1.7e308, -1.7e308, 3.5e38, 1e300]
_ZERO = float(np.float32(1e-35))
_SPECIAL += [_ZERO, np.nextafter(_ZERO, 1), -_ZERO, np.nextafter(-_ZERO, -1)]
_STATISTICS = ["Borders", "Buckets", "BinarizedTargetMeanValue", "Counter", "Borders:Prior=0.3"]
_ODD_CODES = [-0.5, -0.99, -1.0, -1.5, 0.5, 3.7, 2.0**24, 2.0**31, 2.0**31 - 1, 2.0**32 + 1, 2.0**63, -(2.0**31), 1e9]


@dataclass(frozen=True, kw_only=True)
class SampleModel:
    """A trained model.

    Args:
        algorithm: the library.
        model: its bytes, as in a package.
        categorical: indices of its categorical inputs.
        text: how it was trained, for messages.
        exact: CatBoost's own format, because its reader of JSON rounds leaves.
    """

    algorithm: str
    model: bytes
    categorical: tuple[int, ...]
    text: str
    exact: bytes = b""


def random_model(algorithm: str, seed: int, *, largest: int = 12) -> SampleModel:
    """Train a small model with random options; the same seed gives the same model.

    Args:
        largest: number of rounds at most.
    """
    rng = np.random.default_rng(seed)
    n_features = int(rng.integers(1, 7))
    rows = int(rng.integers(60, 400))
    matrix = rng.normal(size=(rows, n_features)) * 10.0 ** rng.integers(-3, 4)
    matrix = np.round(matrix, int(rng.integers(0, 8)))
    categorical = tuple(index for index in range(n_features) if rng.random() < 0.3)
    for index in categorical:
        matrix[:, index] = rng.integers(0, int(rng.integers(2, 70)), rows)
    if rng.random() < 0.7:
        matrix[rng.random(matrix.shape) < rng.choice([0.02, 0.3])] = np.nan
    if rng.random() < 0.4:
        matrix[rng.random(matrix.shape) < 0.3] = 0.0
    if rng.random() < 0.2 and algorithm == "lightgbm":
        numeric = [index for index in range(n_features) if index not in categorical]
        matrix[:, numeric] = np.where(rng.random((rows, len(numeric))) < 0.05, np.inf, matrix[:, numeric])
    signal = np.nan_to_num(matrix, posinf=9, neginf=-9)
    signal = signal @ rng.normal(size=n_features) + np.sin(signal[:, 0])
    train = {"lightgbm": _lightgbm, "xgboost": _xgboost, "sklearn": _sklearn, "catboost": _catboost}[algorithm]
    return train(matrix, np.argsort(np.argsort(signal)), categorical, rng, largest)


def _lightgbm(
    matrix: Matrix, rank: npt.NDArray[Any], categorical: tuple[int, ...], rng: np.random.Generator, largest: int
) -> SampleModel:
    objective = str(rng.choice(["binary", "regression", "multiclass", "multiclassova", "poisson", "lambdarank", "l1"]))
    options: dict[str, Any] = {
        "objective": objective,
        "boosting": str(rng.choice(["gbdt", "gbdt", "dart", "rf"])),
        "num_leaves": int(rng.choice([2, 7, 31, 80])),
        "min_data_in_leaf": int(rng.choice([1, 10])),
        "learning_rate": float(rng.choice([0.1, 1.0])),
        "use_missing": bool(rng.random() < 0.8),
        "zero_as_missing": bool(rng.random() < 0.3),
        "min_data_per_group": 5,
        "max_cat_to_onehot": int(rng.choice([1, 4, 100])),
        "verbosity": -1,
        "num_threads": 1,
        "seed": int(rng.integers(1000)),
    }
    if options["boosting"] == "rf":
        options |= {"bagging_fraction": 0.7, "bagging_freq": 1}
    classes = 3 if objective.startswith("multiclass") else 2
    labels = rank * classes // len(rank) if objective != "regression" else rank / len(rank)
    extra = {"num_class": 3} if classes == 3 else {}
    group = [len(rank)] if objective == "lambdarank" else None
    data = lgb.Dataset(matrix, labels, categorical_feature=list(categorical), group=group)
    booster = lgb.train({**options, **extra}, data, int(rng.integers(1, largest + 1)))
    return SampleModel(
        algorithm="lightgbm", model=booster.model_to_string().encode(), categorical=categorical, text=f"{options}"
    )


def _xgboost(
    matrix: Matrix, rank: npt.NDArray[Any], categorical: tuple[int, ...], rng: np.random.Generator, largest: int
) -> SampleModel:
    objective = str(
        rng.choice(["binary:logistic", "reg:squarederror", "multi:softprob", "count:poisson", "rank:ndcg", "reg:gamma"])
    )
    options: dict[str, Any] = {
        "objective": objective,
        "booster": str(rng.choice(["gbtree", "gbtree", "dart"])),
        "max_depth": int(rng.choice([1, 3, 6])),
        "eta": float(rng.choice([0.1, 1.0])),
        "num_parallel_tree": int(rng.choice([1, 1, 3])),
        "max_cat_to_onehot": int(rng.choice([1, 4, 100])),
        "tree_method": "hist",
        "nthread": 1,
        "verbosity": 0,
        "seed": int(rng.integers(1000)),
    }
    if options["booster"] == "dart":
        options["rate_drop"] = 0.5
    if rng.random() < 0.5 and objective != "multi:softprob":
        options["base_score"] = float(rng.choice([0.5, 0.3, 0.9]))
    classes = 3 if objective == "multi:softprob" else 2
    extra = {"num_class": 3} if classes == 3 else {}
    labels = rank * classes // len(rank) + (1 if objective == "reg:gamma" else 0)
    types = ["c" if index in categorical else "q" for index in range(matrix.shape[1])]
    qid = np.zeros(len(rank)) if objective == "rank:ndcg" else None
    data = xgb.DMatrix(matrix, label=labels, feature_types=types, enable_categorical=True, qid=qid)
    booster = xgb.train({**options, **extra}, data, int(rng.integers(1, largest + 1)))
    form = str(rng.choice(["json", "ubj"]))
    model = bytes(booster.save_raw(form))
    return SampleModel(algorithm="xgboost", model=model, categorical=categorical, text=f"{options} {form}")


def _sklearn(
    matrix: Matrix, rank: npt.NDArray[Any], categorical: tuple[int, ...], rng: np.random.Generator, largest: int
) -> SampleModel:
    kind = HistGradientBoostingClassifier if rng.random() < 0.5 else HistGradientBoostingRegressor
    rounds, leaves = int(rng.integers(1, largest + 1)), int(rng.choice([3, 31]))
    filled = np.where(np.isnan(matrix).all(axis=0), 0.0, matrix)
    model = kind(
        max_iter=rounds, max_leaf_nodes=leaves, min_samples_leaf=3, categorical_features=list(categorical) or None
    )
    model.fit(filled, rank * 2 // len(rank))
    trees, _ = export_trees(model, matrix.shape[1])
    return SampleModel(
        algorithm="sklearn", model=trees.to_bytes(), categorical=categorical, text=f"{kind.__name__} {rounds} {leaves}"
    )


def _catboost(
    matrix: Matrix, rank: npt.NDArray[Any], categorical: tuple[int, ...], rng: np.random.Generator, largest: int
) -> SampleModel:
    loss = str(rng.choice(["Logloss", "RMSE", "MAE", "MultiClass", "MultiClassOneVsAll", "QueryRMSE"]))
    options: dict[str, Any] = {
        "loss_function": loss,
        "iterations": int(rng.integers(1, largest + 1)),
        "grow_policy": str(rng.choice(["SymmetricTree", "SymmetricTree", "Lossguide", "Depthwise"])),
        "depth": int(rng.choice([1, 3, 6, 9])),
        "learning_rate": float(rng.choice([0.1, 1.0])),
        "nan_mode": str(rng.choice(["Min", "Max"])),
        "border_count": int(rng.choice([1, 32, 254])),
        "one_hot_max_size": int(rng.choice([2, 10, 255])),
        "simple_ctr": [str(kind) for kind in rng.choice(_STATISTICS, 2, replace=False)],
        "max_ctr_complexity": 1,
        "random_seed": int(rng.integers(1000)),
        "bootstrap_type": "No",
        "thread_count": 1,
        "allow_writing_files": False,
    }
    classes = 3 if loss.startswith("MultiClass") else 2
    labels = rank * classes // len(rank) if loss not in ("RMSE", "MAE") else rank * 0.37 + 5
    # CatBoost trains on no matrix whose columns never change.
    matrix = np.concatenate([matrix, np.arange(len(matrix))[:, None] % 2.0], axis=1)
    group = np.zeros(len(rank), dtype=np.int64) if loss.startswith("Query") else None
    pool = catboost.Pool(catboost_table(matrix, categorical), labels, cat_features=list(categorical), group_id=group)
    model = catboost.CatBoost(options).fit(pool, log_cout=io.StringIO(), log_cerr=io.StringIO())
    return SampleModel(
        algorithm="catboost",
        model=export_json(model, [matrix], categorical),
        categorical=categorical,
        text=f"{options}",
        exact=model._serialize_model(),
    )


def catboost_table(rows: Matrix, categorical: tuple[int, ...]) -> pd.DataFrame:
    """Return rows as CatBoost takes them: a category by its digits, -1 if it is missing, -2 if it is none."""
    with np.errstate(over="ignore"):
        columns: dict[int, Any] = {index: rows[:, index].astype(np.float32) for index in range(rows.shape[1])}
    for index in categorical:
        numbers = columns[index].tolist()
        columns[index] = ["-1" if math.isnan(x) else str(int(x)) if -1 < x < 2**31 else "-2" for x in numbers]
    return pd.DataFrame(columns)


def library_margins(sample: SampleModel, rows: Matrix) -> Matrix:
    """Return the raw scores of the library itself, shape ``(n, k)``."""
    if sample.algorithm == "lightgbm":
        booster = lgb.Booster(model_str=sample.model.decode())
        margins = booster.predict(rows, raw_score=True, num_threads=1)
    elif sample.algorithm == "xgboost":
        loaded = xgb.Booster({"nthread": 1}, model_file=bytearray(sample.model))
        margins = loaded.inplace_predict(rows, predict_type="margin", missing=np.nan)
    elif sample.algorithm == "catboost":
        own = catboost.CatBoost()
        own.load_model(blob=sample.exact)
        margins = own.predict(catboost_table(rows, sample.categorical), prediction_type="RawFormulaVal", thread_count=1)
    else:
        margins = TreeArraysRuntime(sample.model, "m").margin(rows)
    return np.asarray(margins, dtype=np.float64).reshape(len(rows), -1)


def hard_rows(table: TreeTable, categorical: tuple[int, ...], seed: int, count: int) -> Matrix:
    """Return rows on and beside every threshold, with odd numbers and categories, and random rows."""
    rng = np.random.default_rng(seed)
    rows = np.empty((count, table.facts.n_features))
    thresholds = table.thresholds()
    for index in range(table.facts.n_features):
        own = np.array([value for feature, value in thresholds if feature == index], dtype=np.float64)
        pools = [np.array(_SPECIAL), rng.normal(size=20) * 10, *([neighbours(own)] * 2 if own.size else [])]
        if index in categorical:
            pools += [np.array(_ODD_CODES), np.arange(80.0)]
        rows[:, index] = np.array([rng.choice(pools[kind]) for kind in rng.integers(0, len(pools), count)])
    return rows


def same_bits(left: Matrix, right: Matrix) -> npt.NDArray[np.bool_]:
    """Return which rows of two matrices have equal bits."""
    equal: npt.NDArray[np.bool_] = (left.view(np.int64) == right.view(np.int64)).all(axis=1)
    return equal


def slow_margins(table: TreeTable, rows: Matrix) -> Matrix:
    """Return margins by the text of the table module, one row and node at a time, shape ``(n, k)``."""
    facts = table.facts
    trees = list(table.trees())
    number = np.float32 if facts.sum_type == "float32" else np.float64
    result = np.empty((len(rows), facts.n_outputs))
    for at, row in enumerate(rows):
        inputs = _prepare(facts, row)
        total = [number(value) for value in facts.base]
        for tree in trees:
            node = tree.nodes[0]
            while not node.is_leaf:
                node = tree.nodes[node.left if _goes_left(facts, node, float(inputs[node.feature])) else node.right]
            total[tree.output] = total[tree.output] + number(node.value)
        result[at] = total
    return result * facts.scale + np.array(facts.bias) if facts.bias else result


def _prepare(facts: TreeFacts, row: Matrix) -> Matrix:
    with np.errstate(over="ignore"):
        inputs: Matrix = row.astype(facts.input_type).astype(np.float64)
    return inputs if facts.zero is None else np.where(np.abs(inputs) <= facts.zero, 0.0, inputs)


def _goes_left(facts: TreeFacts, node: TreeNode, value: float) -> bool:
    if np.isnan(value) and node.missing == "none":
        value = 0.0
    if np.isnan(value) or (node.missing == "zero" and value == 0):
        return node.default_left
    if node.test == "in":
        low, high = facts.category_range
        known = low < value < high and not (facts.whole_categories and value % 1)
        return known and int(value) in node.categories
    return value <= node.threshold if node.test == "<=" else value < node.threshold
