"""Trees as plain arrays, scored with numpy: no library at all, and bit-equal to scikit-learn's own sums."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.runtimes.port import Matrix, Vector, check_matrix

_LARGEST_EXPONENT = 709.782712893384


Bools = NDArray[np.bool_]
Numbers = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeArrays:
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


class TreeArraysRuntime:
    """A boosted model of one output as ``TreeArrays``; see Runtime for the contract.

    All trees go down one level at a time; their leaves are added from the first to the last, as
    scikit-learn adds them. numpy holds the GIL for most of it.

    Args:
        trees: the model.
        name: what errors call it.
    """

    runtime_id = f"tree-arrays-{np.__version__}"
    n_outputs = 1

    def __init__(self, trees: TreeArrays, name: str) -> None:
        self._trees: TreeArrays | None = trees
        self._name = name
        self.n_features = len(trees.known)

    @classmethod
    def from_file(cls, path: Path) -> TreeArraysRuntime:
        """Load a model file, an ``.npz`` without pickles.

        Raises:
            PackageError: the file is not such a model.
        """
        name = f"model file {path.name!r}"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(TreeArrays(**{item.name: arrays[item.name] for item in fields(TreeArrays)}), name)
        except (BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
            raise PackageError(
                name, f"is not a model of tree arrays: {error}", fix="train and package the model again"
            ) from error

    def margin(self, matrix: Matrix) -> Vector:
        """Return the baseline plus the leaf of every tree, in order."""
        check_matrix(matrix, self.n_features)
        trees = self._open_trees()
        # accumulate adds from left to right, whatever the shape; sum does not.
        total: Vector = np.add.accumulate(trees.leaves(matrix), axis=1)[:, -1].copy()
        return total

    def score(self, matrix: Matrix) -> Vector:
        """Return probabilities of a model with the link ``logit``, else the margins."""
        margins = self.margin(matrix)
        if self._open_trees().link != "logit":
            return margins
        return np.array([_sigmoid(value) for value in margins.tolist()], dtype=np.float64)

    def contributions(self, matrix: Matrix) -> NDArray[np.float64]:
        """Refuse: scikit-learn has no TreeSHAP to be equal to."""
        check_matrix(matrix, self.n_features)
        raise RequestError(
            self._name, "has no contributions: its library cannot tell them", fix="use lightgbm or xgboost"
        )

    def close(self) -> None:
        """Free the model."""
        self._trees = None

    def _open_trees(self) -> TreeArrays:
        if self._trees is None:
            raise PackageError(self._name, "is closed", fix="open it again")
        return self._trees


def _sigmoid(value: float) -> float:
    """Return ``1 / (1 + exp(-value))`` by the C library, as scikit-learn does; numpy's exp has other bits."""
    return 0.0 if value < -_LARGEST_EXPONENT else 1.0 / (1.0 + math.exp(-value))
