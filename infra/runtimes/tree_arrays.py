"""Trees as plain arrays, scored with numpy: no library at all, and bit-equal to scikit-learn's own sums."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.runtimes.matrix import check_matrix
from skewless.infra.runtimes.port import Matrix, Vector
from skewless.infra.runtimes.trees import Trees

_LARGEST_EXPONENT = 709.782712893384


class TreeArraysRuntime:
    """A boosted model of one output as ``Trees``; see Runtime for the contract.

    All trees go down one level at a time; their leaves are added from the first to the last, as
    scikit-learn adds them. numpy holds the GIL for most of it.

    Args:
        trees: the model.
        name: what errors call it.
    """

    def __init__(self, trees: Trees, name: str) -> None:
        self._trees: Trees | None = trees
        self._name = name
        self._n_features = len(trees.known)

    @classmethod
    def from_file(cls, path: Path) -> TreeArraysRuntime:
        """Load a model file, an ``.npz`` without pickles.

        Raises:
            PackageError: the file is not such a model.
        """
        name = f"model file {path.name!r}"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(Trees(**{item.name: arrays[item.name] for item in fields(Trees)}), name)
        except (BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
            raise PackageError(
                name, f"is not a model of tree arrays: {error}", fix="train and package the model again"
            ) from error

    @property
    def runtime_id(self) -> str:
        """Name the way of scoring and numpy's version."""
        return f"tree-arrays-{np.__version__}"

    @property
    def n_features(self) -> int:
        """Return the width of the matrix."""
        return self._n_features

    @property
    def n_outputs(self) -> int:
        """Return 1."""
        return 1

    def margin(self, matrix: Matrix) -> Vector:
        """Return the baseline plus the leaf of every tree, in order."""
        check_matrix(matrix, self._n_features)
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
        check_matrix(matrix, self._n_features)
        raise RequestError(
            self._name, "has no contributions: its library cannot tell them", fix="use lightgbm or xgboost"
        )

    def close(self) -> None:
        """Free the model."""
        self._trees = None

    def _open_trees(self) -> Trees:
        if self._trees is None:
            raise PackageError(self._name, "is closed", fix="open it again")
        return self._trees


def _sigmoid(value: float) -> float:
    """Return ``1 / (1 + exp(-value))`` by the C library, as scikit-learn does; numpy's exp has other bits."""
    return 0.0 if value < -_LARGEST_EXPONENT else 1.0 / (1.0 + math.exp(-value))
