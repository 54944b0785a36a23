"""Computes the SHAP values of CatBoost's symmetric trees, with the bits of CatBoost's own.

The algorithm is TreeSHAP (Lundberg et al., 2018, "Consistent Individualized Feature Attribution for Tree Ensembles") in
CatBoost's order of operations. A row's values in a tree depend on its leaf alone, so they are computed once per leaf,
for many leaves at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from skewless_catboost.json_model import CatBoostModel, CatBoostTree

DEEPEST = 10
"""Levels of a tree, at most. The time for a leaf doubles with each level."""
# CatBoost skips leaves that no training row has reached, up to this weight.
_NOTHING = 1e-13
# Numbers at a time: leaves whose values are wanted, times all leaves of the tree.
_CHUNK = 2**16

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Path:
    """The features on the way from the root to each leaf, each once, before them one that is not a feature.

    Args:
        features: the features.
        zero: per feature, the share of training rows that go the way without its value.
        one: per feature, 1 if the row goes the way with its value, otherwise 0.
        weights: per feature, the weight of the sets of as many features.
    """

    features: tuple[int, ...] = ()
    zero: tuple[Numbers, ...] = ()
    one: tuple[Numbers, ...] = ()
    weights: tuple[Numbers, ...] = ()

    def extend(self, feature: int, zero: Numbers, one: Numbers) -> _Path:
        """Return the path with a feature at its end."""
        length = len(self.weights)
        weights = [*self.weights, np.asarray(0.0 if length else 1.0)]
        for at in range(length - 1, -1, -1):
            weights[at + 1] = weights[at + 1] + one * weights[at] * (at + 1) / (length + 1)
            weights[at] = zero * weights[at] * (length - at) / (length + 1)
        return _Path(
            features=(*self.features, feature),
            zero=(*self.zero, zero),
            one=(*self.one, one),
            weights=tuple(weights),
        )

    def unwind(self, erased: int) -> _Path:
        """Return the path without one of its features."""
        length = len(self.weights)
        zero, one = self.zero[erased], self.one[erased]
        weights, rest = list(self.weights[:-1]), self.weights[-1]
        for at in range(length - 2, -1, -1):
            old = weights[at]
            hot = rest * length / (one * (at + 1))
            rest = old - hot * zero * (length - at - 1) / length
            weights[at] = np.where(one != 0, hot, old * (length / (zero * (length - at - 1))))
        kept = [at for at in range(length) if at != erased]
        return _Path(
            features=tuple(self.features[at] for at in kept),
            zero=tuple(self.zero[at] for at in kept),
            one=tuple(self.one[at] for at in kept),
            weights=tuple(weights),
        )


class _TreeValues:
    """The SHAP values of a tree's leaves, computed when they are first needed.

    Args:
        tree: a symmetric tree.
        sources: feature of each column.
        is_softmax: whether CatBoost subtracts the mean of all outputs, which changes roundings only.
    """

    def __init__(self, tree: CatBoostTree, sources: Sequence[int], *, is_softmax: bool) -> None:
        self._leaves = tree.leaves
        self._depth = tree.depth or 0
        self._splits = [sources[tree.columns[2**level - 1]] for level in range(self._depth)]
        self._weights = [tree.weights]
        while len(self._weights[0]) > 1:
            self._weights.insert(0, self._weights[0][::2] + self._weights[0][1::2])
        total = np.add.accumulate(tree.leaves * tree.weights[:, None], axis=0)[-1]
        self.mean: Numbers = total / self._weights[0][0]
        self._shift = np.add.accumulate(self.mean)[-1] / len(self.mean) if is_softmax else 0.0
        self.features = list(dict.fromkeys(self._splits))
        self._values = np.zeros((len(tree.leaves), len(self.features), tree.leaves.shape[1]))
        self._is_known = np.zeros(len(tree.leaves), dtype=np.bool_)

    def fill(self, leaves: NDArray[np.int64]) -> Numbers:
        """Return the values of rows by their leaves, ``(n, n_features_of_the_tree, n_outputs)``."""
        unknown = np.unique(leaves[~self._is_known[leaves]])
        step = max(1, _CHUNK >> self._depth)
        for at in range(0, len(unknown), step):
            chosen = unknown[at : at + step]
            self._compute(chosen)
            self._is_known[chosen] = True
        values: Numbers = self._values[leaves]
        return values

    def _compute(self, chosen: NDArray[np.int64]) -> None:
        """Compute the values of some leaves; an array has a row for each leaf of the tree, a column for each chosen."""
        # CatBoost visits the leaf of the row first, then the leaves that differ from it in the lowest splits.
        distance = np.arange(len(self._leaves))[:, None]
        leaf = distance ^ chosen
        with np.errstate(divide="ignore", invalid="ignore"):
            path = self._walk(leaf, distance)
            is_visited = (self._weights[-1] > _NOTHING)[leaf][:, :, None]
            for at in range(1, len(path.features)):
                weight = np.add.accumulate(np.array(np.broadcast_arrays(*path.unwind(at).weights)), axis=0)[-1]
                share = weight * (path.one[at] - path.zero[at])
                parts = np.where(is_visited, share[:, :, None] * (self._leaves[leaf] - self._shift), 0.0)
                column = self.features.index(path.features[at])
                self._values[chosen, column] = np.add.accumulate(parts, axis=0)[-1]

    def _walk(self, leaf: NDArray[np.int64], distance: NDArray[np.int64]) -> _Path:
        always = np.asarray(1.0)
        path = _Path().extend(-1, always, always)
        for level, feature in enumerate(self._splits):
            zero = one = always
            if feature in path.features:
                at = path.features.index(feature)
                zero, one = path.zero[at], path.one[at]
                path = path.unwind(at)
            below = self._depth - level - 1
            node = leaf >> below
            share = self._weights[level + 1][node] / self._weights[level][node >> 1]
            path = path.extend(feature, zero * share, np.where(distance >> below & 1, 0.0, one))
        return path


class ShapValues:
    """The SHAP values of a model of symmetric trees; several threads may use it.

    The first rows take longer: some milliseconds for a tree of 6 levels.
    """

    def __init__(self, model: CatBoostModel) -> None:
        sources = [*range(model.n_features), *(column.feature for column in model.columns)]
        is_softmax = model.n_outputs > 1 and model.loss == "MultiClass"
        self._trees = [_TreeValues(tree, sources, is_softmax=is_softmax) for tree in model.trees]
        self._bias = np.array(model.bias)
        self._n_features = model.n_features
        self._lock = Lock()

    def compute(self, leaves: NDArray[np.int64]) -> Numbers:
        """Return contributions, ``(n, n_outputs, n_features + 1)``, the bias last.

        Args:
            leaves: ``(n_trees, n)``, the leaf of each row in each tree.
        """
        values = np.zeros((leaves.shape[1], len(self._bias), self._n_features + 1))
        for tree, chosen in zip(self._trees, leaves, strict=True):
            with self._lock:
                parts = tree.fill(chosen)
            for at, feature in enumerate(tree.features):
                values[:, :, feature] += parts[:, at]
            values[:, :, -1] += tree.mean
        values[:, :, -1] += self._bias
        return values
