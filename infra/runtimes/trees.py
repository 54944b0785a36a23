"""Decision trees as arrays over their nodes."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from skewless.infra.runtimes.port import Matrix

Bools = NDArray[np.bool_]
Numbers = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trees:
    """Nodes of all trees in one numbering; a leaf is its own child.

    A number goes left if it is at most the threshold. A category goes left if it is among those of its
    node. A missing value, and a category that no training row had, goes where the node says.

    Args:
        roots: node of each tree's root, in the order of boosting.
        feature: per node, the feature that it looks at.
        threshold: per node, float64.
        left: per node, its left child.
        right: per node, its right child.
        missing_left: per node, where a missing value goes.
        value: per node, float64; of a leaf what it adds.
        category_row: per node, its row in ``left_categories``; -1 of one that compares numbers.
        left_categories: ``(n_rows, n_codes)``, the categories that go left.
        known: ``(n_features, n_codes)``, the categories of each feature in training.
        categorical: ``(n_features,)``, which features hold category codes.
        baseline: what all trees add to, shape ``()``.
        depth: levels of the deepest tree, shape ``()``.
        link: ``logit`` or ``identity``, shape ``()``.
    """

    roots: Numbers
    feature: Numbers
    threshold: NDArray[np.float64]
    left: Numbers
    right: Numbers
    missing_left: Bools
    value: NDArray[np.float64]
    category_row: Numbers
    left_categories: Bools
    known: Bools
    categorical: Bools
    baseline: NDArray[np.float64]
    depth: NDArray[np.int32]
    link: NDArray[np.str_]

    def leaves(self, matrix: Matrix) -> Matrix:
        """Return the baseline and each tree's leaf value, shape ``(n, 1 + n_trees)``."""
        values = self._without_unknown(matrix)
        rows = np.arange(len(matrix))[:, None]
        at = np.repeat(self.roots[None, :], len(matrix), axis=0)
        for _ in range(int(self.depth)):
            goes_left = self._goes_left(at, values[rows, self.feature[at]])
            at = np.where(goes_left, self.left[at], self.right[at])
        found = np.empty((len(matrix), 1 + len(self.roots)))
        found[:, 0] = self.baseline
        found[:, 1:] = self.value[at]
        return found

    def to_bytes(self) -> bytes:
        """Return the model file: an ``.npz`` whose bytes follow from the arrays alone."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **{item.name: getattr(self, item.name) for item in fields(self)})
        return buffer.getvalue()

    def _without_unknown(self, matrix: Matrix) -> Matrix:
        """Return the matrix with NaN for every code that is no category of its feature."""
        if not self.categorical.any():
            return matrix
        values = matrix.copy()
        for feature in np.flatnonzero(self.categorical):
            known = np.flatnonzero(self.known[feature])
            values[~np.isin(values[:, feature], known), feature] = np.nan
        return values

    def _goes_left(self, at: Numbers, values: Matrix) -> Bools:
        missing = np.isnan(values)
        left: Bools = np.where(missing, self.missing_left[at], values <= self.threshold[at])
        row = self.category_row[at]
        chosen = (row >= 0) & ~missing
        if chosen.any():
            left[chosen] = self.left_categories[row[chosen], values[chosen].astype(np.int64)]
        return left
