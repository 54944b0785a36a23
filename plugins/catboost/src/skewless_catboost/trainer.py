"""Trains models with CatBoost."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import catboost
import numpy as np
import pandas as pd

from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.spec import ModelSpec
from skewless.infra.models.runtimes.port import Matrix, Scores
from skewless.training.trainers.port import (
    Parameters,
    Queries,
    TrainedModel,
    TrainingSet,
    cap_thresholds,
    check_labels,
    row_weights,
    split_parameters,
)
from skewless_catboost.json_model import EXTENSION, MISSING, CatBoostModel, read_model
from skewless_catboost.trees import link_scores

# For CatBoost a category like any other, but never of the training rows.
_UNKNOWN = -2
_LARGEST_CODE = 2.0**31
# The place in CatBoost's source, before its messages.
_PLACE = re.compile(r"^[\w/.]+:\d+: ")
_LOSS = {"binary": "Logloss", "regression": "RMSE", "multiclass": "MultiClass", "ranking": "YetiRank"}
# The raw score is the prediction, or the runtime computes the link.
_LOSSES = {
    "binary": ("Logloss", "CrossEntropy"),
    "regression": ("RMSE", "MAE", "Quantile", "MAPE", "Huber", "Expectile", "Lq", "LogCosh"),
    "multiclass": ("MultiClass", "MultiClassOneVsAll"),
    "ranking": ("YetiRank", "YetiRankPairwise", "LambdaMart", "StochasticRank", "QueryRMSE", "QuerySoftMax"),
}
_LOSS_NAMES = ("loss_function", "objective")
_COMPLEXITY = "max_ctr_complexity"


@dataclass(frozen=True)
class CatBoostTrainer:
    """A Trainer that uses CatBoost; category codes are categorical features.

    Statistics of single categories are used, but none of several features together, which no runtime scores.

    Args:
        threads: number of cores; it does not change the model.
    """

    threads: int = 1

    def train(self, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None = None) -> TrainedModel:
        """Train a model; see Trainer.

        Raises:
            SourceError: also if each feature has one value in all rows.
            DefinitionError: also if a loss function has a link that no runtime computes.
        """
        check_labels(rows, spec)
        params = split_parameters(spec, validation)
        loss = _find_loss(spec)
        _check_features_differ(rows)
        if params.values.get(_COMPLEXITY, 1) != 1:
            raise DefinitionError(
                f"model {spec.name!r} params",
                f"has statistics of several features, which no runtime scores: {_COMPLEXITY}",
                value=params.values[_COMPLEXITY],
                fix="leave it at 1",
            )
        options = self._options(spec, params, loss)
        if (rows.labels == rows.labels[0]).all():
            # As with the other libraries, the model is then a constant. CatBoost cannot draw rows without a gradient.
            options["bootstrap_type"] = "No"
        try:
            model = catboost.CatBoost(options).fit(
                _pool(rows, spec),
                eval_set=None if validation is None else _pool(validation, spec),
                # CatBoost writes warnings to stderr, whatever the level.
                log_cout=io.StringIO(),
                log_cerr=io.StringIO(),
            )
        except (catboost.CatBoostError, TypeError, ValueError) as error:
            message = _PLACE.sub("", str(error).splitlines()[0])
            raise DefinitionError(
                f"model {spec.name!r}", f"is rejected by CatBoost: {message}", fix="correct its params"
            ) from error
        return _build_model(model, rows, validation, loss)

    def _options(self, spec: ModelSpec, params: Parameters, loss: str) -> dict[str, Any]:
        stopping: dict[str, Any] = (
            {"od_type": "Iter", "od_wait": params.early_stopping} if params.early_stopping else {}
        )
        return {
            **{name: value for name, value in params.values.items() if name not in _LOSS_NAMES},
            **({"classes_count": len(spec.classes)} if spec.classes else {}),
            **stopping,
            "loss_function": loss,
            "iterations": spec.rounds,
            "random_seed": spec.seed,
            # By default CatBoost keeps the best round whenever there are validation rows.
            "use_best_model": params.early_stopping is not None,
            "thread_count": self.threads,
            "task_type": "CPU",
            "allow_const_label": True,
            "allow_writing_files": False,
            "logging_level": "Silent",
            _COMPLEXITY: 1,
        }


def _check_features_differ(rows: TrainingSet) -> None:
    first = rows.matrix[0]
    if bool(((rows.matrix == first) | (np.isnan(rows.matrix) & np.isnan(first))).all()):
        raise SourceError(
            "training matrix",
            "has one value per feature, of which CatBoost trains no model",
            fix="check the features, or use lightgbm",
        )


def _find_loss(spec: ModelSpec) -> str:
    """Return the loss function with its parameters, for example ``Quantile:alpha=0.9``."""
    loss = next((str(spec.params[name]) for name in _LOSS_NAMES if name in spec.params), _LOSS[spec.task])
    possible = _LOSSES[spec.task]
    if loss.partition(":")[0] not in possible:
        raise DefinitionError(
            f"model {spec.name!r} params",
            f"has a loss function that the runtime does not support for {spec.task}",
            value=loss,
            fix=f"use {', '.join(possible)}",
        )
    return loss


def _pool(rows: TrainingSet, spec: ModelSpec) -> catboost.Pool:
    if spec.task != "ranking":
        table = read_table(rows.matrix, rows.categorical)
        return catboost.Pool(table, rows.labels, weight=row_weights(rows, spec), cat_features=list(rows.categorical))
    queries = Queries.of(rows)
    weights = queries.weights()
    return catboost.Pool(
        read_table(cast("Matrix", queries.rows.matrix), rows.categorical),
        queries.rows.labels,
        group_id=queries.rows.groups,
        group_weight=None if weights is None else np.repeat(weights, queries.sizes),
        cat_features=list(rows.categorical),
    )


def read_table(matrix: Matrix, categorical: tuple[int, ...]) -> pd.DataFrame:
    """Return rows as CatBoost reads them: numbers as float32, categories as integers, which it hashes by their digits.

    A category is a float32 number with its fraction cut off; it is unknown if it is below 0 or beyond 31 bits.
    """
    with np.errstate(over="ignore", under="ignore"):
        numbers = matrix.astype(np.float32)
    columns: dict[int, Any] = {index: numbers[:, index] for index in range(matrix.shape[1])}
    for index in categorical:
        codes = np.trunc(numbers[:, index])
        is_code = (codes >= 0) & (codes < _LARGEST_CODE)
        known = np.where(is_code, codes, _UNKNOWN)
        columns[index] = np.where(np.isnan(codes), MISSING, known).astype(np.int64)
    return pd.DataFrame(columns)


def _build_model(
    model: catboost.CatBoost, rows: TrainingSet, validation: TrainingSet | None, loss: str
) -> TrainedModel:
    # Counters can include the validation rows.
    matrices = [rows.matrix] if validation is None else [rows.matrix, validation.matrix]
    content = export_json(model, matrices, rows.categorical)
    parsed = read_model(content, "the trained model")
    # Of a constant model, they are not numbers.
    gains = np.nan_to_num(model.get_feature_importance(type="PredictionValuesChange"))
    history = model.get_evals_result().get("validation", {})

    def margin(matrix: Matrix) -> Scores:
        values = model.predict(read_table(matrix, rows.categorical), prediction_type="RawFormulaVal")
        return np.ascontiguousarray(values, dtype=np.float64)

    return TrainedModel(
        algorithm="catboost",
        library=f"catboost {catboost.__version__}",
        model=content,
        file_name="model.json",
        rounds=len(parsed.trees),
        raw_margin=margin,
        score=lambda matrix: link_scores(loss.partition(":")[0], margin(matrix)),
        thresholds=cap_thresholds(_thresholds(parsed)),
        importance=dict(zip(rows.feature_names, map(float, gains), strict=True)),
        splits=dict(zip(rows.feature_names, _splits(parsed), strict=True)),
        learning={metric: [float(value) for value in values] for metric, values in history.items()},
    )


def export_json(model: catboost.CatBoost, matrices: Sequence[Matrix], categorical: tuple[int, ...]) -> bytes:
    """Return a model's JSON without times, random ids, and settings that are not part of the model.

    Args:
        model: trained on these rows.
        matrices: all rows from which CatBoost can have categories.
        categorical: indices of columns of category codes.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        content: dict[str, Any] = json.loads(path.read_bytes())
    loss = content["model_info"]["params"]["loss_function"]
    content["model_info"] = {"params": {"loss_function": loss}}
    codes = {
        str(index): np.unique(np.concatenate([read_table(matrix, (index,))[index] for matrix in matrices])).tolist()
        for index in categorical
    }
    content[EXTENSION] = {"n_features": matrices[0].shape[1], "codes": codes}
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


def _thresholds(model: CatBoostModel) -> Iterator[tuple[int, float]]:
    """Yield (feature, border) of every split of a number, and every category of the training rows."""
    for tree in model.trees:
        pairs = zip(tree.columns, tree.borders, strict=True)
        yield from ((column, border) for column, border in pairs if column < model.n_features)
    yield from ((feature, float(code)) for feature, codes in model.codes.items() for code in codes if code >= 0)


def _splits(model: CatBoostModel) -> list[int]:
    """Return the number of splits of each feature, without those of trees that are constants."""
    sources = [*range(model.n_features), *(column.feature for column in model.columns)]
    trees = [tree for tree in model.trees if (tree.leaves != tree.leaves[0]).any()]
    used = np.array([sources[column] for tree in trees for column in tree.columns], dtype=np.int64)
    counts: list[int] = np.bincount(used, minlength=model.n_features).tolist()
    return counts
