"""Reads the tree table of a model of scikit-learn from the arrays in its package."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from skewless_export.table import Tree, TreeFacts, TreeNode, TreeTable, leaf
from skewless_sklearn.tree_arrays import TreeArrays


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
