"""The rows of a certificate reach the nodes of a model on both sides, within a limit, and are always the same."""

from __future__ import annotations

import numpy as np

from skewless_export.evaluate import prepare_inputs, tree_leaves
from skewless_export.export_rows import export_rows
from skewless_export.readers import read_trees
from skewless_export.table import Test, Tree, TreeFacts, TreeNode, TreeTable, leaf
from tests.worlds.tree_models import random_model

FACTS = TreeFacts(
    algorithm="lightgbm", feature_names=("a", "b"), n_outputs=1, objective="", link="identity", base=(0.0,)
)


def split(threshold: float, left: int, right: int, *codes: int) -> TreeNode:
    """Return a test of the number a, or with codes of the category b."""
    kind: Test = "in" if codes else "<="
    return TreeNode(kind, int(bool(codes)), threshold, "nan", False, codes, left, right, np.nan)  # noqa: FBT003 - a tuple


def test_each_leaf_is_reached_and_each_threshold_has_rows_next_to_it() -> None:
    nodes = (
        split(2.5, 1, 2),
        split(np.nan, 3, 4, 3, 40),
        split(np.inf, 5, 6),  # only a missing value goes right
        *(leaf(float(at)) for at in range(4)),
    )
    table = TreeTable.from_trees(FACTS, [Tree(0, nodes)])
    rows = export_rows(table, {"given": np.zeros((2, 2))}, most=1_000)
    assert (rows.nodes, rows.tested) == (3, 3)
    assert rows.counts["given"] == 2
    assert len(rows.matrix) == sum(rows.counts.values())
    own = rows.kinds["nodes"]
    assert {2.5, np.nextafter(2.5, 3)} <= set(own[:, 0].tolist())
    assert {3.0, 4.0, 40.0, 41.0} <= set(own[:, 1].tolist())
    assert {*tree_leaves(FACTS, Tree(0, nodes), prepare_inputs(FACTS, own)).tolist()} == {3, 4, 5, 6}


def test_a_limit_keeps_the_edges_of_as_many_nodes_as_possible() -> None:
    table = read_trees("lightgbm", random_model("lightgbm", 24).model, "sample")
    every, some = (export_rows(table, {}, most=most) for most in (100_000, 500))
    assert len(some.kinds["nodes"]) == 500
    assert 200 < some.tested < every.tested
    again = export_rows(table, {}, most=500)
    assert again.matrix.tobytes() == some.matrix.tobytes()
