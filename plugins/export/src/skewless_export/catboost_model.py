"""Reads the tree table of a CatBoost model from the JSON in its package."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache

from skewless_catboost.json_model import MISSING, CatBoostModel, CatBoostTree, read_model
from skewless_export.table import Link, Tree, TreeFacts, TreeNode, TreeTable, leaf

_LINKS: Mapping[str, Link] = {
    **dict.fromkeys(("Logloss", "CrossEntropy", "MultiClassOneVsAll"), "sigmoid"),
    "MultiClass": "softmax",
}


def read_catboost(model: bytes, name: str) -> TreeTable:
    """Return the trees of a package's model file: split i is node i, leaf j is node ``n_splits + j``.

    A statistic of a category is a function of the category alone, so that a split of it is a set of categories, which
    go left. A category that training has not seen is in no set.

    Args:
        model: the JSON that the trainer has written.
        name: the model's name in errors.

    Raises:
        PackageError: the bytes are not such a model.
    """
    content = read_model(model, name)
    facts = TreeFacts(
        algorithm="catboost",
        feature_names=tuple(f"f{index}" for index in range(content.n_features)),
        n_outputs=content.n_outputs,
        objective=content.loss,
        link=_LINKS.get(content.loss, "identity"),
        input_type="float32",
        base=(0.0,) * content.n_outputs,
        bias=tuple(content.bias) if any(content.bias) else (),
    )
    return TreeTable.from_trees(facts, _read_trees(content))


def _read_trees(model: CatBoostModel) -> Iterator[Tree]:
    make = cache(lambda column, border: _read_split(model, column, border))
    for tree in model.trees:
        splits = [
            _place(make(*split), tree, at) for at, split in enumerate(zip(tree.columns, tree.borders, strict=True))
        ]
        for output in range(model.n_outputs):
            yield Tree(output, (*splits, *map(leaf, tree.leaves[:, output].tolist())))


def _read_split(model: CatBoostModel, column: int, border: float) -> TreeNode:
    """Return a split whose children are 0 and 1: CatBoost's own left and right."""
    if column < model.n_features:
        nan_left = column not in model.nan_right
        return TreeNode("<=", column, border, "nan", nan_left, (), 0, 1, math.nan)
    category = model.columns[column - model.n_features]
    # The set has the side on which an unknown category is not.
    side = category.other <= border
    chosen = {code for code, value in category.values.items() if (value > border) == side}
    return TreeNode(
        test="in",
        feature=category.feature,
        threshold=math.nan,
        missing="nan",
        default_left=MISSING in chosen,
        categories=tuple(sorted(chosen - {MISSING})),
        left=int(side),
        right=int(not side),
        value=math.nan,
    )


def _place(split: TreeNode, tree: CatBoostTree, at: int) -> TreeNode:
    """Return a split with its children's nodes."""
    children = [child if child >= 0 else len(tree.columns) + ~child for child in (tree.left[at], tree.right[at])]
    return split._replace(left=children[split.left], right=children[split.right])
