"""Scores CatBoost models without CatBoost, bit-equal to it.

CatBoost has no C API in its package, and its Python ``predict`` takes 85 us for a row. LightGBM's C API takes 7 us: it
adds leaves as float64 in the order of the trees, as CatBoost does. For more rows, numpy takes a level of all symmetric
trees at a time: 56 us for 64 rows of 200 trees, where LightGBM takes 900 us.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import RequestError
from skewless.infra.models.runtimes.lightgbm_capi import LightGBMRuntime
from skewless.infra.models.runtimes.link import sigmoid
from skewless.infra.models.runtimes.port import Matrix, Scores, check_matrix, own_provider, reshape_outputs
from skewless_catboost.json_model import (
    MISSING,
    CatBoostModel,
    CatBoostTree,
    CategoryColumn,
    read_model,
)
from skewless_catboost.shap import DEEPEST, ShapValues

Floats = NDArray[np.float32]
_SIGMOID = frozenset({"Logloss", "CrossEntropy", "MultiClassOneVsAll"})
_SOFTMAX = frozenset({"MultiClass"})
# LightGBM reads numbers up to 1e-35 as 0, but CatBoost does not. A power of two changes no comparison, and no float32
# number but 0 is then below that bound.
_SCALE = 2.0**100
# LightGBM's number for a split of numbers whose missing values go left.
_NAN_LEFT = 10
_OTHER_SLOT, _MISSING_SLOT, _FIRST_SLOT = 0, 1, 2
# A batch of numpy takes as long as two or three calls of LightGBM.
_FEW_ROWS = 2
# As many as a processor's cache holds of 200 trees.
_BLOCK_ROWS = 256
_DEPTH_OF_A_BYTE = 8


class CatBoostRuntime:
    """A model of CatBoost; see Runtime for the contract.

    Args:
        content: JSON of the model, as our trainer wrote it.
        name: its name in errors.

    Raises:
        PackageError: it is not such a model, or LightGBM is missing.
    """

    def __init__(self, content: bytes, name: str) -> None:
        model = read_model(content, name)
        self._name = name
        self._loss = model.loss
        self._rows = LightGBMRuntime(write_lightgbm(model), name)
        is_symmetric = bool(model.trees) and all(tree.depth is not None for tree in model.trees)
        self._batch = SymmetricTrees(model) if is_symmetric else None
        is_shallow = all((tree.depth or 0) <= DEEPEST for tree in model.trees)
        has_weights = all(len(tree.weights) == len(tree.leaves) for tree in model.trees)
        self._shap = ShapValues(model) if is_symmetric and is_shallow and has_weights else None
        self._categories = _CategoryTables(model) if model.columns else None
        self._nan_right = sorted(model.nan_right)
        self.runtime_id = f"catboost-by-{self._rows.runtime_id}-numpy-{np.__version__}"
        self.n_features = model.n_features
        self.n_outputs = model.n_outputs

    def margin(self, matrix: Matrix) -> Scores:
        """Return CatBoost's ``RawFormulaVal``, bit for bit."""
        rows = check_matrix(matrix, self.n_features)
        values = self._prepare(matrix)
        if rows > _FEW_ROWS and self._batch is not None:
            self._rows.require_open()
            margins = self._batch.margin(values)
            return margins.ravel() if self.n_outputs == 1 else margins
        return self._rows.margin(values.astype(np.float64) * _SCALE)

    def score(self, matrix: Matrix) -> Scores:
        """Return the predictions of ``link_scores``."""
        return link_scores(self._loss, self.margin(matrix))

    def contributions(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return CatBoost's ``ShapValues``, bit for bit; see Runtime.

        Raises:
            RequestError: also if a tree is not symmetric or has more than 10 levels.
        """
        rows = check_matrix(matrix, self.n_features)
        self._rows.require_open()
        if self._batch is None or self._shap is None:
            raise RequestError(
                self._name,
                f"has no contributions, because not all of its trees are symmetric, with up to {DEEPEST} levels",
                fix="train it with grow_policy SymmetricTree and a smaller depth, or use lightgbm or xgboost",
            )
        values = self._shap.compute(self._batch.leaves(self._prepare(matrix)))
        return reshape_outputs(values, rows, self.n_outputs, self.n_features + 1)

    def close(self) -> None:
        """Free the model."""
        self._rows.close()

    def _prepare(self, matrix: Matrix) -> Floats:
        """Return the inputs as CatBoost reads them, with the category columns behind them."""
        # A number beyond float32 becomes an infinity, as in CatBoost.
        with np.errstate(over="ignore", under="ignore"):
            inputs: Floats = matrix.astype(np.float32)
        for feature in self._nan_right:
            inputs[np.isnan(inputs[:, feature]), feature] = np.inf
        return (
            inputs if self._categories is None else np.concatenate([inputs, self._categories.compute(inputs)], axis=1)
        )


def link_scores(loss: str, margins: Scores) -> Scores:
    """Return the predictions that belong to raw scores.

    Probabilities of ``MultiClass`` are a softmax with the C library's ``exp``. CatBoost uses an approximation that
    depends on the CPU, and differs by some units in the last place.

    Args:
        loss: name of CatBoost's loss function.
        margins: ``(n,)``, or ``(n, k)`` of k outputs.
    """
    if loss in _SIGMOID:
        return np.array([sigmoid(value) for value in margins.ravel().tolist()], dtype=np.float64).reshape(margins.shape)
    if loss in _SOFTMAX:
        return np.array([_softmax(row) for row in margins.tolist()], dtype=np.float64).reshape(margins.shape)
    return margins


def _softmax(row: Sequence[float]) -> list[float]:
    largest = max(row)
    powers = [math.exp(value - largest) for value in row]
    total = sum(powers, 0.0)
    return [power / total for power in powers]


class SymmetricTrees:
    """Symmetric trees, of which numpy evaluates a level at a time.

    Each distinct split is compared once for all trees. The number of a row's leaf has the bits of its splits, the
    highest from the root.
    """

    def __init__(self, model: CatBoostModel) -> None:
        depths = [tree.depth or 0 for tree in model.trees]
        deepest = max(depths)
        # The first split is never true. It is above the roots of trees that are less deep than others.
        numbers: dict[tuple[int, float], int] = {(0, math.inf): 0}
        self._levels: list[NDArray[np.intp]] = []
        for level in range(deepest):
            splits = [
                _split_of_level(tree, level - deepest + depth) for tree, depth in zip(model.trees, depths, strict=True)
            ]
            self._levels.append(np.array([numbers.setdefault(split, len(numbers)) for split in splits], dtype=np.intp))
        self._columns = np.array([column for column, _ in numbers], dtype=np.intp)
        self._borders = np.array([border for _, border in numbers], dtype=np.float32)[:, None]
        self._leaves = np.concatenate([tree.leaves for tree in model.trees])
        self._starts = np.cumsum([0, *(2**depth for depth in depths[:-1])], dtype=np.int32)[:, None]
        self._leaf_type = np.uint8 if deepest <= _DEPTH_OF_A_BYTE else np.uint16
        self._bias = np.array(model.bias)

    def margin(self, values: Floats) -> Scores:
        """Return raw scores, ``(n, n_outputs)``, of prepared inputs."""
        blocks = [self._add_leaves(values[at : at + _BLOCK_ROWS]) for at in range(0, len(values), _BLOCK_ROWS)]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def leaves(self, values: Floats) -> NDArray[np.int64]:
        """Return the number of each row's leaf in each tree, ``(n_trees, n)``."""
        return self._find_leaves(values).astype(np.int64)

    def _add_leaves(self, values: Floats) -> Scores:
        if len(values) == 1:
            # Along a single column, numpy adds in pairs, not in order.
            return self._add_leaves(np.repeat(values, 2, axis=0))[:1]
        leaf = self._find_leaves(values)
        total: Scores = np.add.reduce(self._leaves.take(self._starts + leaf, axis=0), axis=0)
        return total + self._bias if self._bias.any() else total

    def _find_leaves(self, values: Floats) -> NDArray[np.uint8 | np.uint16]:
        by_column = np.ascontiguousarray(values.T)
        is_right = (by_column.take(self._columns, axis=0) > self._borders).view(np.uint8)
        leaf = np.zeros((len(self._starts), len(values)), dtype=self._leaf_type)
        for splits in self._levels:
            np.left_shift(leaf, 1, out=leaf)
            np.bitwise_or(leaf, is_right.take(splits, axis=0), out=leaf)
        return leaf


def _split_of_level(tree: CatBoostTree, level: int) -> tuple[int, float]:
    """Return the column and border of a symmetric tree's level; one above the root is never true."""
    if level < 0:
        return 0, math.inf
    node = 2**level - 1
    return tree.columns[node], tree.borders[node]


class _CategoryTables:
    """Computes the category columns of rows from tables.

    A category has a slot in the tables of its feature: that of its code, of a missing category, or of all others.
    """

    def __init__(self, model: CatBoostModel) -> None:
        features = sorted({column.feature for column in model.columns})
        largest = {feature: max((*model.codes[feature], MISSING)) for feature in features}
        tables = [_fill_table(column, largest[column.feature]) for column in model.columns]
        self._features = np.array(features, dtype=np.intp)
        self._largest = np.array([float(largest[feature]) for feature in features])
        self._table = np.concatenate(tables)
        self._starts = np.cumsum([0, *(len(table) for table in tables[:-1])], dtype=np.int64)
        self._feature_of_column = np.array([features.index(column.feature) for column in model.columns], dtype=np.intp)

    def compute(self, inputs: Floats) -> Floats:
        """Return the columns of rows, ``(n, n_columns)``."""
        values = inputs.take(self._features, axis=1)
        codes = np.trunc(values)
        # Of NaN both are false.
        is_known = (codes >= 0) & (codes <= self._largest)
        slots = np.where(is_known, codes + _FIRST_SLOT, _OTHER_SLOT)
        slots[np.isnan(values)] = _MISSING_SLOT
        columns: Floats = self._table[slots.astype(np.int64).take(self._feature_of_column, axis=1) + self._starts]
        return columns


def _fill_table(column: CategoryColumn, largest: int) -> Floats:
    table = np.full(largest + 1 + _FIRST_SLOT, column.other, dtype=np.float32)
    codes = np.array(list(column.values), dtype=np.int64)
    slots = np.where(codes == MISSING, _MISSING_SLOT, codes + _FIRST_SLOT)
    table[slots] = list(column.values.values())
    return table


def write_lightgbm(model: CatBoostModel) -> bytes:
    """Return LightGBM's text of a model that has the raw scores of a model of CatBoost.

    Its features are the inputs as float32 numbers and the category columns, all times 2^100.
    """
    width = model.n_features + len(model.columns)
    outputs = range(model.n_outputs)
    trees = [block for tree in model.trees for block in _tree_blocks(tree, outputs)]
    # Added last, as CatBoost does. A model of LightGBM needs a tree.
    if any(model.bias) or not trees:
        trees += [_constant_block(model.bias[output]) for output in outputs]
    blocks = [f"Tree={number}\n{tree}\n\n" for number, tree in enumerate(trees)]
    head = {
        "version": "v4",
        "num_class": model.n_outputs,
        "num_tree_per_iteration": model.n_outputs,
        "label_index": 0,
        "max_feature_idx": width - 1,
        "feature_names": _join(f"f{index}" for index in range(width)),
        "feature_infos": _join(["none"] * width),
        # LightGBM cuts the text into trees by these lengths.
        "tree_sizes": _join(map(len, blocks)),
    }
    lines = "\n".join(f"{key}={value}" for key, value in head.items())
    return f"tree\n{lines}\n\n{''.join(blocks)}end of trees\n\nparameters:\nend of parameters\n".encode()


def _tree_blocks(tree: CatBoostTree, outputs: range) -> Iterator[str]:
    """Yield a tree for each output."""
    if not tree.columns:
        yield from (_constant_block(float(tree.leaves[0, output])) for output in outputs)
        return
    # A symmetric tree has few borders, each in many nodes.
    texts = {border: repr(border * _SCALE) for border in set(tree.borders)}
    lines = {
        "num_leaves": len(tree.leaves),
        "num_cat": 0,
        "split_feature": _join(tree.columns),
        "threshold": _join(map(texts.__getitem__, tree.borders)),
        "decision_type": _join([_NAN_LEFT] * len(tree.columns)),
        "left_child": _join(tree.left),
        "right_child": _join(tree.right),
    }
    splits = "\n".join(f"{key}={value}" for key, value in lines.items())
    for output in outputs:
        yield f"{splits}\nleaf_value={_join(map(repr, tree.leaves[:, output].tolist()))}\nis_linear=0\nshrinkage=1"


def _constant_block(value: float) -> str:
    return f"num_leaves=1\nnum_cat=0\nleaf_value={value!r}\nis_linear=0\nshrinkage=1"


def _join(values: Iterable[object]) -> str:
    return " ".join(map(str, values))


PROVIDER = own_provider("catboost", CatBoostRuntime)
