"""Scores a tree table as the FIL of Triton does, on the CPU and in single precision; FIL itself is not needed.

FIL rounds inputs, thresholds, leaves and the base to float32. It adds the leaves of 64 trees to a float32, then these
sums, then the base. A GPU adds in another order.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skewless.infra.models.runtimes.port import Matrix
from skewless_export.evaluate import tree_leaves
from skewless_export.table import Tree, TreeTable
from skewless_export.triton_repository import GROVE


def single_precision_margins(table: TreeTable, rows: Matrix) -> Matrix:
    """Return the raw scores of rows in single precision, as float64, shape ``(n, n_outputs)``.

    Categories are matched as the library does, so only the precision differs from it.

    Args:
        rows: ``(n, n_features)`` float64; NaN is missing.
    """
    facts = replace(table.facts, input_type="float32", zero=None)
    with np.errstate(over="ignore", under="ignore"):
        inputs: Matrix = rows.astype(np.float32).astype(np.float64)
        sums = np.zeros((len(rows), facts.n_outputs), dtype=np.float32)
        grove = np.zeros_like(sums)
        for number, tree in enumerate(table.trees()):
            if number and number % GROVE == 0:
                sums, grove = sums + grove, np.zeros_like(sums)
            leaves = np.array([node.value for node in tree.nodes], dtype=np.float32)
            grove[:, tree.output] += leaves[tree_leaves(facts, _rounded(tree), inputs)]
        sums = (sums + grove) * np.float32(facts.scale)
        sums += np.array(facts.base, dtype=np.float32)
        sums += np.array(facts.bias or 0.0, dtype=np.float32)
    return sums.astype(np.float64)


def _rounded(tree: Tree) -> Tree:
    thresholds = np.array([node.threshold for node in tree.nodes], dtype=np.float32)
    pairs = zip(tree.nodes, thresholds.tolist(), strict=True)
    return Tree(tree.output, tuple(node._replace(threshold=threshold) for node, threshold in pairs))
