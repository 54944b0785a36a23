"""scikit-learn's trees as plain arrays in the order of the plan's features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from skewless.infra.runtimes.port import Vector
from skewless.infra.runtimes.tree_arrays import Bools, Trees

Model = Any
"""A fitted HistGradientBoostingClassifier or -Regressor; scikit-learn has no types."""

_BITS = 32


def exported(model: Model, n_features: int) -> tuple[Trees, Vector]:
    """Return a model's trees and each feature's total gain.

    scikit-learn puts categorical features first and numbers their categories anew; both are undone here.
    """
    grown = [tree for (tree,) in model._predictors]  # noqa: SLF001 - the trees have no public name
    offsets = np.cumsum([0, *(len(tree.nodes) for tree in grown)])
    nodes = np.concatenate([tree.nodes for tree in grown])
    first = np.repeat(offsets[:-1], np.diff(offsets))
    order, categories = _features(model, n_features)
    leaf = nodes["is_leaf"].astype(bool)
    feature = np.where(leaf, 0, np.asarray(order)[nodes["feature_idx"]])
    known = _known(categories, n_features)
    rows, table = _left_categories(grown, offsets, feature, known)
    own = np.arange(len(nodes))
    trees = Trees(
        roots=offsets[:-1].astype(np.int32),
        feature=feature.astype(np.int32),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=np.where(leaf, own, first + nodes["left"]).astype(np.int32),
        right=np.where(leaf, own, first + nodes["right"]).astype(np.int32),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        value=nodes["value"].astype(np.float64),
        category_row=rows,
        left_categories=table,
        known=known,
        categorical=np.isin(np.arange(n_features), list(categories)),
        baseline=np.asarray(model._baseline_prediction.item()),  # noqa: SLF001 - as above
        depth=np.asarray(nodes["depth"].max(), dtype=np.int32),
        link=np.asarray("logit" if isinstance(model, HistGradientBoostingClassifier) else "identity"),
    )
    gains: Vector = np.bincount(feature[~leaf], weights=nodes["gain"][~leaf], minlength=n_features).astype(np.float64)
    return trees, gains


def _features(model: Model, n_features: int) -> tuple[list[int], dict[int, NDArray[np.int64]]]:
    """Return the plan's feature per feature of the trees, and the categories of those that have some."""
    if model.is_categorical_ is None:
        return list(range(n_features)), {}
    categorical = np.flatnonzero(model.is_categorical_).tolist()
    numeric = np.flatnonzero(~model.is_categorical_).tolist()
    found = model._preprocessor.named_transformers_["encoder"].categories_  # noqa: SLF001 - as above
    codes = [values[~np.isnan(values)].astype(np.int64) for values in found]
    return [*categorical, *numeric], dict(zip(categorical, codes, strict=True))


def _known(categories: dict[int, NDArray[np.int64]], n_features: int) -> Bools:
    width = max((int(codes.max(initial=-1)) for codes in categories.values()), default=-1) + 1
    known = np.zeros((n_features, width), dtype=np.bool_)
    for feature, codes in categories.items():
        known[feature, codes] = True
    return known


def _left_categories(
    grown: Sequence[Any], offsets: NDArray[np.int64], feature: NDArray[np.int64], known: Bools
) -> tuple[NDArray[np.int32], Bools]:
    """Return per node its row in a table of the categories that go left, and the table."""
    rows = np.full(offsets[-1], -1, dtype=np.int32)
    table: list[Bools] = []
    for tree, (start, end) in zip(grown, pairwise(offsets.tolist()), strict=True):
        for at in np.flatnonzero(tree.nodes["is_categorical"] & ~tree.nodes["is_leaf"].astype(bool)).tolist():
            rows[start:end][at] = len(table)
            own = np.flatnonzero(known[feature[start + at]])
            bits = tree.raw_left_cat_bitsets[tree.nodes["bitset_idx"][at]]
            table.append(np.isin(np.arange(known.shape[1]), own[_bits(bits)[: len(own)]]))
    return rows, np.array(table, dtype=np.bool_).reshape(len(table), known.shape[1])


def _bits(words: NDArray[np.uint32]) -> Bools:
    """Return the bits of 32-bit words, lowest first.

    >>> np.flatnonzero(_bits(np.array([5, 1], dtype=np.uint32))).tolist()
    [0, 2, 32]
    """
    found: Bools = ((words[:, None] >> np.arange(_BITS, dtype=np.uint32)) & 1).astype(np.bool_).ravel()
    return found
