"""Reads the tree table of a LightGBM model from its text.

The text is read, and not ``Booster.dump_model()``, which prints 1e300 for an infinite threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from skewless.contract.errors import PackageError
from skewless_export.table import Link, Missing, Tree, TreeFacts, TreeNode, TreeTable, leaf

# kZeroThreshold of LightGBM: a float32 number, compared with float64 inputs.
_ZERO = float(np.float32(1e-35))
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING: tuple[Missing, ...] = ("none", "zero", "nan")
_LINKS: Mapping[str, Link] = {
    **dict.fromkeys(("binary", "cross_entropy", "multiclassova"), "sigmoid"),
    "multiclass": "softmax",
    **dict.fromkeys(("poisson", "gamma", "tweedie"), "exp"),
    **dict.fromkeys(("lambdarank", "rank_xendcg"), "identity"),
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile", "mape"), "identity"),
}
_WORD_BITS = 32
Block = Mapping[str, str]


def read_lightgbm(model: bytes, name: str) -> TreeTable:
    """Return the trees of a model's text; inner node i of LightGBM is node i, leaf j is node ``n_leaves - 1 + j``.

    Args:
        model: what ``Booster.model_to_string`` or ``save_model`` has written.
        name: the model's name in errors.

    Raises:
        PackageError: the text is not a model, or its trees have linear leaves.
    """
    head, *blocks = model.decode(errors="replace").partition("end of trees")[0].split("\nTree=")
    try:
        described = _parse(head)
        outputs = int(described["num_tree_per_iteration"])
        trees = [Tree(at % outputs, _read_nodes(_parse(block), name)) for at, block in enumerate(blocks)]
        facts = _read_facts(described, outputs, len(trees) // outputs)
    except (KeyError, ValueError, IndexError) as error:
        raise PackageError(name, f"is not a LightGBM text model: {error!r}", fix="package the model again") from error
    return TreeTable.from_trees(facts, trees)


def _parse(block: str) -> Block:
    """Return the values of ``key=value`` lines; a line without a value has an empty one."""
    return {key: value for key, _, value in (line.partition("=") for line in block.splitlines())}


def _read_facts(head: Block, outputs: int, iterations: int) -> TreeFacts:
    objective, *words = head.get("objective", "").split()
    options = dict(word.split(":") for word in words if ":" in word)
    # Without an objective, LightGBM's prediction is the margin. With `sqrt`, it is a square.
    link = "identity" if not objective else _LINKS.get(objective, "other")
    return TreeFacts(
        algorithm="lightgbm",
        feature_names=tuple(head["feature_names"].split()),
        n_outputs=outputs,
        objective=head.get("objective", ""),
        link="other" if "sqrt" in words else link,
        link_scale=float(options.get("sigmoid", 1.0)),
        base=(0.0,) * outputs,
        zero=_ZERO,
        divisor=float(iterations) if "average_output" in head else 1.0,
    )


def _read_nodes(block: Block, name: str) -> tuple[TreeNode, ...]:
    if block.get("is_linear", "0").strip() == "1":
        fix = "train it without linear_tree"
        raise PackageError(name, "has linear leaves, which no export can express", value="linear_tree", fix=fix)
    leaves = int(block["num_leaves"])
    values = list(map(float, block["leaf_value"].split()))
    if len(values) != leaves:
        raise ValueError(f"{len(values)} values for {leaves} leaves")
    inner = _read_splits(block, leaves) if leaves > 1 else []
    return (*inner, *map(leaf, values))


def _read_splits(block: Block, leaves: int) -> list[TreeNode]:
    sets = _read_sets(block)
    splits: list[TreeNode] = []
    columns: list[Sequence[Any]] = [
        _numbers(block, key, leaves - 1) for key in ("split_feature", "decision_type", "left_child", "right_child")
    ]
    thresholds = block["threshold"].split()
    for feature, kind, left, right, text in zip(*columns, thresholds, strict=True):
        is_category = bool(kind & _CATEGORICAL)
        splits.append(
            TreeNode(
                test="in" if is_category else "<=",
                feature=feature,
                threshold=math.nan if is_category else float(text),
                # A missing category goes right, whatever the text says.
                missing="nan" if is_category else _MISSING[kind >> 2 & 3],
                default_left=not is_category and bool(kind & _DEFAULT_LEFT),
                categories=sets[int(float(text))] if is_category else (),
                # A child below 0 is the leaf of its complement.
                left=left if left >= 0 else leaves - 1 + ~left,
                right=right if right >= 0 else leaves - 1 + ~right,
                value=math.nan,
            )
        )
    return splits


def _read_sets(block: Block) -> list[tuple[int, ...]]:
    if not int(block.get("num_cat", "0")):
        return []
    ends = list(map(int, block["cat_boundaries"].split()))
    words = list(map(int, block["cat_threshold"].split()))
    return [
        tuple(
            at * _WORD_BITS + bit
            for at, word in enumerate(words[start:end])
            for bit in range(_WORD_BITS)
            if word >> bit & 1
        )
        for start, end in pairwise(ends)
    ]


def _numbers(block: Block, key: str, count: int) -> list[int]:
    values = list(map(int, block[key].split()))
    if len(values) != count:
        raise ValueError(f"{len(values)} of {key} for {count} splits")
    return values
