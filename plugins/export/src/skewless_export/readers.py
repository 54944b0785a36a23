"""Reads the tree table of a model by the library that trained it; that of scikit-learn from the package's arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.tree_arrays import TreeArrays
from skewless_export.lightgbm_text import read_lightgbm
from skewless_export.table import Tree, TreeFacts, TreeNode, TreeTable, leaf
from skewless_export.xgboost_model import read_xgboost


def read_sklearn(model: bytes, name: str) -> TreeTable:
    """Return the trees of a package's model file; nodes keep their order.

    Args:
        model: the ``.npz`` that the trainer has written.
        name: the model's name in errors.

    Raises:
        PackageError: the bytes are not such a model.
    """
    arrays = TreeArrays.from_bytes(model, name)
    facts = TreeFacts(
        algorithm="sklearn",
        feature_names=tuple(f"f{index}" for index in range(len(arrays.known))),
        n_outputs=1,
        objective=str(arrays.link),
        link="sigmoid" if arrays.link == "logit" else "identity",
        base=(float(arrays.baseline),),
        whole_categories=True,
    )
    return TreeTable.from_trees(facts, _read_trees(arrays))


def _read_trees(arrays: TreeArrays) -> Iterator[Tree]:
    ends = [*arrays.roots.tolist()[1:], len(arrays.left)]
    for start, end in zip(arrays.roots.tolist(), ends, strict=True):
        yield Tree(0, tuple(_read_node(arrays, at, start) for at in range(start, end)))


def _read_node(arrays: TreeArrays, at: int, start: int) -> TreeNode:
    left, right = int(arrays.left[at]), int(arrays.right[at])
    if left == at:
        return leaf(float(arrays.value[at]))
    row, feature, missing_left = int(arrays.category_row[at]), int(arrays.feature[at]), bool(arrays.missing_left[at])
    categories: tuple[int, ...] = ()
    if row >= 0:
        # A category that training has not seen goes the way of a missing one: the set is the other side's.
        known, chosen = arrays.known[feature], arrays.left_categories[row]
        categories = tuple(np.flatnonzero(known & (~chosen if missing_left else chosen)).tolist())
        left, right = (right, left) if missing_left else (left, right)
    return TreeNode(
        test="in" if row >= 0 else "<=",
        feature=feature,
        threshold=math.nan if row >= 0 else float(arrays.threshold[at]),
        missing="nan",
        default_left=missing_left and row < 0,
        categories=categories,
        left=left - start,
        right=right - start,
        value=math.nan,
    )


def _read_catboost(model: bytes, name: str) -> TreeTable:
    try:
        from skewless_export.catboost_model import read_catboost  # noqa: PLC0415 - builds on the plug-in of CatBoost
    except ImportError as error:
        fix = "pip install 'skewless[catboost]'"
        raise PackageError(name, "has trees that cannot be read", value=str(error), fix=fix) from error
    return read_catboost(model, name)


READERS: Mapping[str, Callable[[bytes, str], TreeTable]] = {
    "lightgbm": read_lightgbm,
    "xgboost": read_xgboost,
    "sklearn": read_sklearn,
    "catboost": _read_catboost,
}


def read_trees(algorithm: str, model: bytes, name: str, feature_names: Sequence[str] = ()) -> TreeTable:
    """Return the trees of a model.

    Args:
        algorithm: the library that trained it.
        model: bytes of its file, as in a package.
        name: its name in errors.
        feature_names: names of the inputs that replace those of the library; empty: none.

    Raises:
        PackageError: no reader knows the library, the bytes are not a model, or it has parts that no table can hold.
    """
    reader = READERS.get(algorithm)
    if reader is None:
        fix = f"use a model of {', '.join(READERS)}"
        raise PackageError(name, "has trees that cannot be read", value=algorithm, fix=fix)
    table = reader(model, name)
    if not feature_names:
        return table
    if len(feature_names) != table.facts.n_features:
        actual = f"{len(feature_names)} for {table.facts.n_features} inputs"
        raise PackageError(name, "has another number of inputs", value=actual, fix="package the model again")
    return replace(table, facts=replace(table.facts, feature_names=tuple(feature_names)))
