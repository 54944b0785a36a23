"""Reads the tree table of an XGBoost model from its JSON or UBJSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.link import XGBoostLink
from skewless.infra.models.runtimes.xgboost_capi import XGBoostRuntime
from skewless_export.table import Link, Tree, TreeFacts, TreeNode, TreeTable, leaf

_LINKS: Mapping[str, Link] = {
    **dict.fromkeys(("binary:logistic", "reg:logistic"), "sigmoid"),
    "multi:softprob": "softmax",
    **dict.fromkeys(("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox"), "exp"),
    **dict.fromkeys(("rank:ndcg", "rank:pairwise", "rank:map", "binary:logitraw"), "identity"),
    **dict.fromkeys(
        ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror", "reg:squaredlogerror"),
        "identity",
    ),
}
Sets = Mapping[int, tuple[int, ...]]
"""TreeNode of a tree -> the categories that go right in XGBoost."""
_LARGEST_CATEGORY = 2.0**24
# XGBoost takes -0.0 as category 0, and rejects all below.
_BELOW_ZERO = -float(np.finfo(np.float32).smallest_subnormal)


def read_xgboost(model: bytes, name: str) -> TreeTable:
    """Return the trees of a model; a set of categories is the side that XGBoost calls right.

    The library is used for UBJSON, and for the margin of ``base_score``, which only its own logarithm gives exactly.
    Nodes keep their order, and nodes that no row reaches are removed.

    Args:
        model: what ``Booster.save_raw`` or ``save_model`` has written.
        name: the model's name in errors.

    Raises:
        PackageError: XGBoost is missing, the bytes are not a model, or it has no trees or vectors in its leaves.
    """
    text = model if model[:2] in {b'{"', b"{\n", b"{ "} else _as_json(model, name)
    try:
        learner = json.loads(text)["learner"]
        booster = learner["gradient_booster"]
        if booster["name"] not in {"gbtree", "dart"}:
            fix = "train it with booster gbtree or dart"
            raise PackageError(name, "has no trees", value=booster["name"], fix=fix)
        base = _base_margin(text, name)
        facts = _read_facts(learner, base)
        forest = booster.get("gbtree", booster)["model"]
        weights = booster.get("weight_drop", [])
        trees = [
            Tree(int(output), _read_nodes(tree, name, None if not weights else (weights[at], base[int(output)])))
            for at, (output, tree) in enumerate(zip(forest["tree_info"], forest["trees"], strict=True))
        ]
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise PackageError(name, f"is not an XGBoost model: {error!r}", fix="package the model again") from error
    return TreeTable.from_trees(facts, trees)


def _as_json(model: bytes, name: str) -> bytes:
    with closing(XGBoostRuntime(model, name)) as runtime:
        return runtime.as_json()


def _base_margin(text: bytes, name: str) -> tuple[float, ...]:
    with closing(XGBoostLink(text, name)) as link:
        return tuple(map(float, link.base))


def _read_facts(learner: Mapping[str, Any], base: tuple[float, ...]) -> TreeFacts:
    count = int(learner["learner_model_param"]["num_feature"])
    objective = learner["objective"]["name"]
    return TreeFacts(
        algorithm="xgboost",
        feature_names=tuple(learner.get("feature_names") or (f"f{index}" for index in range(count))),
        n_outputs=len(base),
        objective=objective,
        link=_LINKS.get(objective, "other"),
        input_type="float32",
        sum_type="float32",
        base=base,
        category_range=(_BELOW_ZERO, _LARGEST_CATEGORY),
    )


def _read_nodes(tree: Mapping[str, Any], name: str, dart: tuple[float, float] | None) -> tuple[TreeNode, ...]:
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        fix = "train it with multi_strategy one_output_per_tree"
        raise PackageError(name, "has vectors in its leaves", value="multi_output_tree", fix=fix)
    left, right = tree["left_children"], tree["right_children"]
    reached = [0]
    for node in reached:  # it grows on the way
        if left[node] != -1:
            reached += [left[node], right[node]]
    numbers = {node: at for at, node in enumerate(sorted(reached))}
    sets = _read_sets(tree)
    values = np.array(tree["split_conditions"], dtype=np.float32)
    leaves = values if dart is None else _drop(values, *dart)
    return tuple(
        leaf(float(leaves[node])) if left[node] == -1 else _read_split(tree, node, float(values[node]), numbers, sets)
        for node in numbers
    )


def _drop(values: NDArray[np.float32], weight: float, base: float) -> NDArray[np.float32]:
    """Return what a tree of dart adds: XGBoost scores it on top of the base margin, and subtracts that again."""
    start = np.float32(base)
    return ((start + values) - start) * np.float32(weight)


def _read_split(
    tree: Mapping[str, Any],
    node: int,
    threshold: float,
    numbers: Mapping[int, int],
    sets: Mapping[int, tuple[int, ...]],
) -> TreeNode:
    left, right = numbers[tree["left_children"][node]], numbers[tree["right_children"][node]]
    default_left = bool(tree["default_left"][node])
    is_category = bool(tree["split_type"][node])
    if is_category:
        # A chosen category goes right in XGBoost, and left in the table.
        left, right, default_left = right, left, not default_left
    return TreeNode(
        test="in" if is_category else "<",
        feature=tree["split_indices"][node],
        threshold=math.nan if is_category else threshold,
        missing="nan",
        default_left=default_left,
        categories=sets[node] if is_category else (),
        left=left,
        right=right,
        value=math.nan,
    )


def _read_sets(tree: Mapping[str, Any]) -> Sets:
    segments = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
    return {node: tuple(tree["categories"][start : start + size]) for node, start, size in segments}
