"""Scores trees that are stored as plain arrays, with numpy; bit-equal to scikit-learn."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.models.runtimes.link import sigmoid
from skewless.infra.models.runtimes.port import Matrix, Vector, check_matrix, own_provider

Bools = NDArray[np.bool_]
Numbers = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeArrays:
    """The nodes of all trees, numbered consecutively; the child of a leaf is the leaf itself.

    A number goes left if it is at most the threshold. A category goes left if it is in the category set of its node.
    A missing value, and a category that is not in the training data, goes to the side of ``missing_left``.

    Args:
        roots: root node of each tree, in the order of boosting.
        feature: per node, the feature that it compares.
        threshold: per node, float64.
        left: per node, its left child.
        right: per node, its right child.
        missing_left: per node, whether a missing value goes left.
        value: per node, float64; the score that a leaf adds.
        category_row: per node, its row in ``left_categories``; -1 if it compares numbers.
        left_categories: ``(n_rows, n_codes)``, the categories that go left.
        known: ``(n_features, n_codes)``, the categories of each feature in the training data.
        categorical: ``(n_features,)``, which features are category codes.
        baseline: the value to which all trees add, shape ``()``.
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
        values = self._mask_unknown(matrix)
        rows = np.arange(len(matrix))[:, None]
        node = np.repeat(self.roots[None, :], len(matrix), axis=0)
        # A row that has reached a leaf stays there, because the child of a leaf is the leaf itself.
        for _ in range(int(self.depth)):
            goes_left = self._goes_left(node, values[rows, self.feature[node]])
            node = np.where(goes_left, self.left[node], self.right[node])
        values_of_leaves = np.empty((len(matrix), 1 + len(self.roots)))
        values_of_leaves[:, 0] = self.baseline
        values_of_leaves[:, 1:] = self.value[node]
        return values_of_leaves

    def to_bytes(self) -> bytes:
        """Return the model file: an ``.npz`` whose bytes depend only on the arrays."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **{item.name: getattr(self, item.name) for item in fields(self)})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, model: bytes, name: str) -> TreeArrays:
        """Return the trees of a model file.

        Raises:
            PackageError: the bytes are not such a model.
        """
        try:
            with np.load(io.BytesIO(model), allow_pickle=False) as arrays:
                return cls(**{item.name: arrays[item.name] for item in fields(cls)})
        except (BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
            fix = "train and package the model again"
            raise PackageError(name, f"is not a model of tree arrays: {error}", fix=fix) from error

    def _mask_unknown(self, matrix: Matrix) -> Matrix:
        """Return the matrix with NaN for every code that is not a category of its feature."""
        if not self.categorical.any():
            return matrix
        values = matrix.copy()
        for feature in np.flatnonzero(self.categorical):
            known = np.flatnonzero(self.known[feature])
            values[~np.isin(values[:, feature], known), feature] = np.nan
        return values

    def _goes_left(self, node: Numbers, values: Matrix) -> Bools:
        missing = np.isnan(values)
        left: Bools = np.where(missing, self.missing_left[node], values <= self.threshold[node])
        row = self.category_row[node]
        is_category = (row >= 0) & ~missing
        if is_category.any():
            left[is_category] = self.left_categories[row[is_category], values[is_category].astype(np.int64)]
        return left


class TreeArraysRuntime:
    """A boosted model of one output as ``TreeArrays``; see Runtime for the contract.

    All trees are traversed together, one level at a time; their leaves are added from the first to the last, as in
    scikit-learn. numpy holds the GIL for most of the time.

    Args:
        model: the model file, an ``.npz`` without pickles.
        name: its name in errors.

    Raises:
        PackageError: it is not such a model.
    """

    runtime_id = f"tree-arrays-{np.__version__}"
    n_outputs = 1

    def __init__(self, model: bytes, name: str) -> None:
        trees = TreeArrays.from_bytes(model, name)
        self._trees: TreeArrays | None = trees
        self._name = name
        self.n_features = len(trees.known)

    def margin(self, matrix: Matrix) -> Vector:
        """Return the baseline plus the leaf of every tree, in order."""
        check_matrix(matrix, self.n_features)
        trees = self._open_trees()
        # accumulate always adds from left to right; sum adds pairwise.
        total: Vector = np.add.accumulate(trees.leaves(matrix), axis=1)[:, -1].copy()
        return total

    def score(self, matrix: Matrix) -> Vector:
        """Return probabilities if the link is ``logit``, otherwise the margins."""
        margins = self.margin(matrix)
        if self._open_trees().link != "logit":
            return margins
        return np.array([sigmoid(value) for value in margins.tolist()], dtype=np.float64)

    def contributions(self, matrix: Matrix) -> NDArray[np.float64]:
        """Raise RequestError: scikit-learn has no TreeSHAP."""
        check_matrix(matrix, self.n_features)
        raise RequestError(
            self._name,
            "has no contributions, because scikit-learn does not compute them",
            fix="use lightgbm or xgboost",
        )

    def close(self) -> None:
        """Free the model."""
        self._trees = None

    def _open_trees(self) -> TreeArrays:
        if self._trees is None:
            raise PackageError(self._name, "is closed", fix="open it again")
        return self._trees


PROVIDER = own_provider("sklearn", TreeArraysRuntime)
