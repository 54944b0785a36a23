"""Trains models with scikit-learn's histogram gradient boosting, and exports their trees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.spec import ModelSpec
from skewless.infra.models.runtimes.port import Matrix, Vector
from skewless.training.trainers.port import (
    TrainedModel,
    TrainingSet,
    cap_thresholds,
    check_labels,
    check_task,
    row_weights,
    split_parameters,
)
from skewless_sklearn.tree_arrays import Bools, TreeArrays

_IDENTITY = frozenset({"log_loss", "squared_error", "absolute_error", "quantile"})
Model = Any
"""A fitted HistGradientBoostingClassifier or -Regressor; scikit-learn has no types."""
_BITS = 32


@dataclass(frozen=True)
class SklearnTrainer:
    """A Trainer that uses HistGradientBoosting, for binary and regression; category codes are categorical features.

    Args:
        threads: number of cores; it does not change the model.
    """

    threads: int = 1

    def train(self, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None = None) -> TrainedModel:
        """Train a model; see Trainer. scikit-learn supports at most 255 categories per feature.

        Raises:
            SourceError: also if a feature value is infinite.
        """
        check_task(spec, ("binary", "regression"))
        check_labels(rows, spec)
        if np.isinf(rows.matrix).any():
            raise SourceError(
                "training matrix",
                "has an infinite value, which scikit-learn cannot bin",
                fix="remove infinite values from the features, or use lightgbm",
            )
        try:
            with threadpool_limits(self.threads, user_api="openmp"):
                model = _fit(rows, spec, validation)
        except (TypeError, ValueError) as error:
            message = str(error).splitlines()[0]
            raise DefinitionError(
                f"model {spec.name!r}", f"is rejected by scikit-learn: {message}", fix="correct its params"
            ) from error
        return _build_model(model, rows)


def _fit(rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None) -> Model:
    params = split_parameters(spec, validation)
    if params.values.get("loss", "log_loss") not in _IDENTITY:
        raise DefinitionError(
            f"model {spec.name!r} params",
            "has a loss that the runtime does not support",
            value=params.values["loss"],
            fix="use squared_error, absolute_error or quantile",
        )
    kind = HistGradientBoostingClassifier if spec.task == "binary" else HistGradientBoostingRegressor
    options: dict[str, Any] = {
        **params.values,
        "max_iter": spec.rounds,
        "random_state": spec.seed,
        "categorical_features": list(rows.categorical) or None,
        # Always given: by default scikit-learn stops early, on a random part of the rows, if there are more than
        # 10,000.
        "early_stopping": params.early_stopping is not None,
    }
    validation_arguments: dict[str, Any] = {}
    if params.early_stopping is not None and validation is not None:
        options["n_iter_no_change"] = params.early_stopping
        validation_arguments = {
            "X_val": validation.matrix,
            "y_val": validation.labels,
            "sample_weight_val": row_weights(validation, spec),
        }
    model = kind(**options).fit(
        _fill_empty_columns(rows.matrix), rows.labels, sample_weight=row_weights(rows, spec), **validation_arguments
    )
    if params.early_stopping is not None:
        _keep_best(model)
    return model


def _fill_empty_columns(matrix: Matrix) -> Matrix:
    """Return the rows with 0 in empty columns, because scikit-learn cannot bin these; no tree splits on them."""
    empty = np.isnan(matrix).all(axis=0)
    return np.where(empty, 0.0, matrix) if empty.any() else matrix


def _keep_best(model: Model) -> None:
    """Drop the rounds after the best, as the other libraries do; the first validation score is of zero rounds."""
    del model._predictors[max(int(np.argmax(model.validation_score_)), 1) :]  # noqa: SLF001 - has no public method


def _build_model(model: Model, rows: TrainingSet) -> TrainedModel:
    trees, gains = export_trees(model, rows.matrix.shape[1])
    validation_scores = np.asarray(model.validation_score_, dtype=np.float64).tolist()
    return TrainedModel(
        algorithm="sklearn",
        library=f"scikit-learn {sklearn.__version__}",
        model=trees.to_bytes(),
        file_name="model.npz",
        rounds=len(trees.roots),
        raw_margin=lambda matrix: _margin(model, _mask_infinite_codes(matrix, trees)),
        score=lambda matrix: _score(model, _mask_infinite_codes(matrix, trees)),
        thresholds=cap_thresholds(_thresholds(trees)),
        importance=dict(zip(rows.feature_names, gains.tolist(), strict=True)),
        splits=dict(zip(rows.feature_names, _splits(trees, rows.matrix.shape[1]), strict=True)),
        learning={"score": validation_scores} if validation_scores else {},
    )


def _mask_infinite_codes(matrix: Matrix, trees: TreeArrays) -> Matrix:
    """Return rows with missing values instead of infinite category codes, which scikit-learn rejects."""
    return np.where(np.isinf(matrix) & trees.categorical, np.nan, matrix)


def _margin(model: Model, matrix: Matrix) -> Vector:
    if isinstance(model, HistGradientBoostingRegressor):
        return np.asarray(model.predict(matrix), dtype=np.float64)
    return np.asarray(model.decision_function(matrix), dtype=np.float64)


def _score(model: Model, matrix: Matrix) -> Vector:
    if isinstance(model, HistGradientBoostingRegressor):
        return np.asarray(model.predict(matrix), dtype=np.float64)
    return np.ascontiguousarray(model.predict_proba(matrix)[:, 1], dtype=np.float64)


def _splits(trees: TreeArrays, n_features: int) -> list[int]:
    inner = trees.left != np.arange(len(trees.left))
    counts: list[int] = np.bincount(trees.feature[inner], minlength=n_features).tolist()
    return counts


def _thresholds(trees: TreeArrays) -> Iterator[tuple[int, float]]:
    """Yield (feature, threshold) of every numeric split, and every category of the training rows."""
    splits = (trees.left != np.arange(len(trees.left))) & (trees.category_row < 0)
    yield from zip(trees.feature[splits].tolist(), trees.threshold[splits].tolist(), strict=True)
    yield from ((feature, float(code)) for feature, code in np.argwhere(trees.known).tolist())


def export_trees(model: Model, n_features: int) -> tuple[TreeArrays, Vector]:
    """Return a model's trees and each feature's total gain.

    scikit-learn moves categorical features to the front and renumbers categories; this function undoes both.
    """
    predictors = [tree for (tree,) in model._predictors]  # noqa: SLF001 - the trees have no public name
    offsets = np.cumsum([0, *(len(tree.nodes) for tree in predictors)])
    nodes = np.concatenate([tree.nodes for tree in predictors])
    # Child indices are relative to their tree; adding the offset of the tree makes them global.
    first = np.repeat(offsets[:-1], np.diff(offsets))
    order, categories = _feature_order(model, n_features)
    leaf = nodes["is_leaf"].astype(bool)
    feature = np.where(leaf, 0, np.asarray(order)[nodes["feature_idx"]])
    categories_table = _known_categories(categories, n_features)
    rows, table = _left_categories(predictors, offsets, feature, categories_table)
    node_numbers = np.arange(len(nodes))
    trees = TreeArrays(
        roots=offsets[:-1].astype(np.int32),
        feature=feature.astype(np.int32),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=np.where(leaf, node_numbers, first + nodes["left"]).astype(np.int32),
        right=np.where(leaf, node_numbers, first + nodes["right"]).astype(np.int32),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        value=nodes["value"].astype(np.float64),
        category_row=rows,
        left_categories=table,
        known=categories_table,
        categorical=np.isin(np.arange(n_features), list(categories)),
        baseline=np.asarray(model._baseline_prediction.item()),  # noqa: SLF001 - as above
        depth=np.asarray(nodes["depth"].max(), dtype=np.int32),
        link=np.asarray("logit" if isinstance(model, HistGradientBoostingClassifier) else "identity"),
    )
    gains: Vector = np.bincount(feature[~leaf], weights=nodes["gain"][~leaf], minlength=n_features).astype(np.float64)
    return trees, gains


def _feature_order(model: Model, n_features: int) -> tuple[list[int], dict[int, NDArray[np.int64]]]:
    """Return the plan's feature index per feature of the trees, and the codes of categorical features."""
    if model.is_categorical_ is None:
        return list(range(n_features)), {}
    categorical = np.flatnonzero(model.is_categorical_).tolist()
    numeric = np.flatnonzero(~model.is_categorical_).tolist()
    encoded = model._preprocessor.named_transformers_["encoder"].categories_  # noqa: SLF001 - as above
    codes = [values[~np.isnan(values)].astype(np.int64) for values in encoded]
    return [*categorical, *numeric], dict(zip(categorical, codes, strict=True))


def _known_categories(categories: dict[int, NDArray[np.int64]], n_features: int) -> Bools:
    width = max((int(codes.max(initial=-1)) for codes in categories.values()), default=-1) + 1
    known = np.zeros((n_features, width), dtype=np.bool_)
    for feature, codes in categories.items():
        known[feature, codes] = True
    return known


def _left_categories(
    predictors: Sequence[Any], offsets: NDArray[np.int64], feature: NDArray[np.int64], known: Bools
) -> tuple[NDArray[np.int32], Bools]:
    """Return per node its row in the table of categories that go left, and the table."""
    rows = np.full(offsets[-1], -1, dtype=np.int32)
    table: list[Bools] = []
    for tree, (start, end) in zip(predictors, pairwise(offsets.tolist()), strict=True):
        for node in np.flatnonzero(tree.nodes["is_categorical"] & ~tree.nodes["is_leaf"].astype(bool)).tolist():
            rows[start:end][node] = len(table)
            # scikit-learn numbers the known categories from 0: bit i is the i-th known code, not the code i.
            codes = np.flatnonzero(known[feature[start + node]])
            bits = tree.raw_left_cat_bitsets[tree.nodes["bitset_idx"][node]]
            table.append(np.isin(np.arange(known.shape[1]), codes[_bits(bits)[: len(codes)]]))
    return rows, np.array(table, dtype=np.bool_).reshape(len(table), known.shape[1])


def _bits(words: NDArray[np.uint32]) -> Bools:
    """Return the bits of 32-bit words, lowest first.

    >>> np.flatnonzero(_bits(np.array([5, 1], dtype=np.uint32))).tolist()
    [0, 2, 32]
    """
    bits: Bools = ((words[:, None] >> np.arange(_BITS, dtype=np.uint32)) & 1).astype(np.bool_).ravel()
    return bits
