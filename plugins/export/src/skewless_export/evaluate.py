"""Scores a tree table with numpy: the raw scores of the library bit for bit, without the library."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skewless.infra.models.runtimes.port import Matrix
from skewless_export.table import Tree, TreeFacts, TreeNode, TreeTable


def table_margins(table: TreeTable, rows: Matrix) -> Matrix:
    """Return the raw scores of rows, float64, shape ``(n, n_outputs)``.

    Args:
        table: the model.
        rows: ``(n, n_features)`` float64; NaN is missing.
    """
    facts = table.facts
    inputs = prepare_inputs(facts, rows)
    sums = np.tile(np.array(facts.base, dtype=facts.sum_type), (len(rows), 1))
    for tree in table.trees():
        values = np.array([node.value for node in tree.nodes], dtype=facts.sum_type)
        sums[:, tree.output] += values[tree_leaves(facts, tree, inputs)]
    if facts.scale != 1.0:
        sums *= sums.dtype.type(facts.scale)
    margins = sums.astype(np.float64)
    return margins + np.array(facts.bias) if facts.bias else margins


def prepare_inputs(facts: TreeFacts, rows: Matrix) -> Matrix:
    """Return the inputs as the library compares them, as float64, shape ``(n, n_features)``."""
    with np.errstate(over="ignore", under="ignore"):
        inputs: Matrix = rows.astype(facts.input_type).astype(np.float64)
    return inputs if facts.zero is None else np.where(np.abs(inputs) <= facts.zero, 0.0, inputs)


def tree_leaves(facts: TreeFacts, tree: Tree, inputs: Matrix) -> NDArray[np.intp]:
    """Return the number of the leaf's node for each row of prepared inputs, shape ``(n,)``."""
    at = np.zeros(len(inputs), dtype=np.intp)
    waiting = [(0, np.arange(len(inputs)))]
    while waiting:
        number, rows = waiting.pop()
        node = tree.nodes[number]
        if node.is_leaf:
            at[rows] = number
        elif len(rows):
            left = _goes_left(facts, node, inputs[rows, node.feature])
            waiting += [(node.left, rows[left]), (node.right, rows[~left])]
    return at


def _goes_left(facts: TreeFacts, node: TreeNode, values: Matrix) -> NDArray[np.bool_]:
    if node.test == "in":
        low, high = facts.category_range
        known = (values > low) & (values < high)
        codes = np.where(known, values, -1.0).astype(np.int64)
        left = known & np.isin(codes, node.categories)
        if facts.whole_categories:
            left &= codes == values
    else:
        left = values <= node.threshold if node.test == "<=" else values < node.threshold
    # Last, because NaN and 0 may go another way than the test says.
    left = np.where(values == 0.0, node.zero_left, left)
    return np.where(np.isnan(values), node.nan_left, left)
