"""Reads a CatBoost model from the JSON of a package, without CatBoost.

``import catboost`` takes 2 seconds, and its own reader of JSON rounds the leaves. Python's reader returns the numbers
of the trained model, bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError

EXTENSION = "skewless"
"""Key of what our trainer adds to CatBoost's JSON: ``n_features``, and the ``codes`` of each categorical feature."""
MISSING = -1
"""The code of a missing category, for CatBoost a category like any other."""
_ONE_HOT_BORDER = 0.5
_CTR_TYPES = ("Borders", "Buckets", "BinarizedTargetMeanValue", "Counter")
_BINARY = 2

# Of CatBoost's hash of category values (CityHash64, of which it takes 32 bits) and of its keys of tables.
_MASK = 2**64 - 1
_MIX, _SHORT_START, _SHORT_END, _KEY = 0x9DDFEA08EB382D69, 0x9AE16A3B2F90404F, 0xC949D7C7509E6557, 0x4906BA494954CB65
_WORD, _HALF_WORD = 8, 4


@dataclass(frozen=True, kw_only=True, eq=False)
class CategoryColumn:
    """A column computed from a category: a target statistic, or 1 for one category and 0 for all others.

    Args:
        feature: index of the category in the vector.
        values: code -> number, for the categories of the training rows; ``MISSING`` is the missing category.
        other: the number of every other category.
    """

    feature: int
    values: Mapping[int, float]
    other: float


@dataclass(frozen=True, kw_only=True, eq=False)
class CatBoostTree:
    """A tree with its splits numbered from the root, 0; a row goes right if its column is above the border.

    Args:
        columns: per split: an input if below the number of inputs, otherwise a category column, counted on.
        borders: per split, a float32 number.
        left: per split, its left child: a split, or the complement of a leaf.
        right: per split, its right child.
        leaves: ``(n_leaves, n_outputs)`` float64.
        weights: of the training rows, ``(n_leaves,)``; empty: they are not known.
        depth: levels of a symmetric tree, of which each has one split, and whose node i has the children 2i + 1 and
            2i + 2; None: the tree is not symmetric.
    """

    columns: Sequence[int]
    borders: Sequence[float]
    left: Sequence[int]
    right: Sequence[int]
    leaves: NDArray[np.float64]
    weights: NDArray[np.float64]
    depth: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class CatBoostModel:
    """A model of CatBoost.

    The raw score is the sum of the leaves as float64, in the order of the trees and from 0, plus the bias. Inputs are
    compared as float32 numbers.

    Args:
        n_features: width of the vector.
        n_outputs: numbers per row.
        loss: name of the loss function, without its parameters.
        bias: per output.
        nan_right: features whose missing values are read as infinity; those of others go left.
        codes: categorical feature -> its codes in the training rows.
        columns: the category columns.
        trees: the trees, in their order.
    """

    n_features: int
    n_outputs: int
    loss: str
    bias: Sequence[float]
    nan_right: frozenset[int]
    codes: Mapping[int, Sequence[int]]
    columns: Sequence[CategoryColumn]
    trees: Sequence[CatBoostTree]


def read_model(content: bytes, name: str) -> CatBoostModel:
    """Return the model of a package.

    Args:
        content: JSON that our trainer wrote.
        name: the model's name in errors.

    Raises:
        PackageError: it is not such a model, or has a part that is not supported.
    """
    try:
        return _ModelReader(json.loads(content), name).read()
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        problem = f"is not a CatBoost model of skewless: {error!r}"
        raise PackageError(name, problem, fix="train and package the model again") from error


class _ModelReader:
    """Reads the parts of a model's JSON."""

    def __init__(self, content: Mapping[str, Any], name: str) -> None:
        self._content, self._name = content, name
        self._features: Mapping[str, Any] = content["features_info"]
        self._n_features = int(content[EXTENSION]["n_features"])
        self._codes = {int(feature): tuple(codes) for feature, codes in content[EXTENSION]["codes"].items()}
        self._categories = [item["flat_feature_index"] for item in self._features.get("categorical_features", ())]
        self._hashes: dict[int, dict[int, int]] = {}

    def read(self) -> CatBoostModel:
        scale, bias = self._content["scale_and_bias"]
        if scale != 1:
            raise PackageError(self._name, "has a scale", value=scale, fix="train it again without set_scale_and_bias")
        columns, splits = self._read_splits()
        trees = [self._read_tree(tree, splits) for tree in self._content.get("oblivious_trees", ())]
        trees += [_read_branches(tree, splits, len(bias)) for tree in self._content.get("trees", ())]
        return CatBoostModel(
            n_features=self._n_features,
            n_outputs=len(bias),
            loss=self._content["model_info"]["params"]["loss_function"]["type"],
            bias=[float(value) for value in bias],
            nan_right=frozenset(
                item["flat_feature_index"]
                for item in self._features.get("float_features", ())
                if item["has_nans"] and item["nan_value_treatment"] == "AsTrue"
            ),
            codes=self._codes,
            columns=columns,
            trees=trees,
        )

    def _read_splits(self) -> tuple[list[CategoryColumn], list[tuple[int, float]]]:
        """Return the category columns, and the column and border of each split by its number in the model."""
        columns: list[CategoryColumn] = []
        splits = [
            (item["flat_feature_index"], float(border))
            for item in self._features.get("float_features", ())
            for border in item["borders"] or ()
        ]
        for item in self._features.get("categorical_features", ()):
            for value in item.get("values", ()):
                splits.append((self._n_features + len(columns), _ONE_HOT_BORDER))
                columns.append(self._one_hot(item["flat_feature_index"], value))
        for item in self._features.get("ctrs", ()):
            splits += [(self._n_features + len(columns), float(border)) for border in item["borders"]]
            columns.append(self._statistic(item))
        return columns, splits

    def _one_hot(self, feature: int, value: int) -> CategoryColumn:
        numbers = {code: float(hashed == value % 2**32) for code, hashed in self._hashes_of(feature).items()}
        return CategoryColumn(feature=feature, values=numbers, other=0.0)

    def _statistic(self, item: Mapping[str, Any]) -> CategoryColumn:
        elements = item["elements"]
        if len(elements) != 1 or elements[0]["combination_element"] != "cat_feature_value":
            problem = "has a statistic of several features"
            raise PackageError(self._name, problem, fix="train it again with max_ctr_complexity 1")
        if item["ctr_type"] not in _CTR_TYPES:
            problem = "has a statistic that is not supported"
            raise PackageError(self._name, problem, value=item["ctr_type"], fix=f"use {', '.join(_CTR_TYPES)}")
        feature = self._categories[elements[0]["cat_feature_index"]]
        table = self._content["ctr_data"][item["identifier"]]
        rows = _table_rows(table)
        denominator = int(table["counter_denominator"])
        width = int(table["hash_stride"]) - 1

        def compute(counts: Sequence[int]) -> float:
            return _compute_statistic(item, counts, denominator)

        nothing = [0] * width
        keys = {code: _table_key(hashed) for code, hashed in self._hashes_of(feature).items()}
        numbers = {code: compute(rows.get(key, nothing)) for code, key in keys.items()}
        return CategoryColumn(feature=feature, values=numbers, other=compute(nothing))

    def _hashes_of(self, feature: int) -> Mapping[int, int]:
        """Return CatBoost's hash of each code of a feature."""
        if feature not in self._hashes:
            self._hashes[feature] = {code: hash_category(code) for code in self._codes[feature]}
        return self._hashes[feature]

    def _read_tree(self, tree: Mapping[str, Any], splits: Sequence[tuple[int, float]]) -> CatBoostTree:
        """Return a symmetric tree with all its splits; the last split is the root, as it has the highest bit."""
        used = [splits[item["split_index"]] for item in tree["splits"] or ()]
        depth = len(used)
        levels = [used[depth - 1 - level] for level in range(depth) for _ in range(2**level)]
        inner = len(levels)
        children = [at if at < inner else ~(at - inner) for at in range(1, 2 * inner + 1)]
        return CatBoostTree(
            columns=[column for column, _ in levels],
            borders=[border for _, border in levels],
            left=children[::2],
            right=children[1::2],
            leaves=np.array(tree["leaf_values"], dtype=np.float64).reshape(inner + 1, -1),
            weights=np.array(tree.get("leaf_weights", ()), dtype=np.float64),
            depth=depth,
        )


def _read_branches(tree: Mapping[str, Any], splits: Sequence[tuple[int, float]], n_outputs: int) -> CatBoostTree:
    """Return a tree of nested splits."""
    used: list[tuple[int, float]] = []
    children: list[list[int]] = []
    leaves: list[Any] = []
    # Each branch with the split and the side (0: left) that refer to it.
    waiting: list[tuple[Mapping[str, Any], int, int]] = [(tree, -1, 0)]
    while waiting:
        branch, parent, side = waiting.pop()
        is_split = "split" in branch
        number = len(used) if is_split else ~len(leaves)
        if parent >= 0:
            children[parent][side] = number
        if is_split:
            used.append(splits[branch["split"]["split_index"]])
            children.append([0, 0])
            waiting += [(branch["right"], number, 1), (branch["left"], number, 0)]
        else:
            leaves.append(branch["value"])
    return CatBoostTree(
        columns=[column for column, _ in used],
        borders=[border for _, border in used],
        left=[left for left, _ in children],
        right=[right for _, right in children],
        leaves=np.array(leaves, dtype=np.float64).reshape(len(leaves), n_outputs),
        weights=np.empty(0),
    )


def _table_rows(table: Mapping[str, Any]) -> dict[int, Sequence[int]]:
    """Return the counts of each key; an empty slot of CatBoost's hash table has the largest key."""
    flat, stride = table["hash_map"], int(table["hash_stride"])
    rows: Iterator[Sequence[Any]] = (flat[at : at + stride] for at in range(0, len(flat), stride))
    return {int(row[0]): row[1:] for row in rows if int(row[0]) != _MASK}


def _compute_statistic(item: Mapping[str, Any], counts: Sequence[float], denominator: int) -> float:
    """Return CatBoost's statistic of a category, computed in float32 in its order."""
    kind, at = item["ctr_type"], item["target_border_idx"]
    good, total = counts[0], sum(counts)
    if kind == "Counter":
        total = denominator
    elif kind == "BinarizedTargetMeanValue":
        total = counts[1]
    elif kind == "Buckets":
        good = counts[at]
    elif len(counts) == _BINARY:
        # Of two classes, CatBoost takes the second one, whatever the border.
        good = counts[1]
    else:
        good = sum(counts[at + 1 :])
    prior, weight, shift, scale = (
        np.float32(item[key]) for key in ("prior_numerator", "prior_denomerator", "shift", "scale")
    )
    return float(((np.float32(good) + prior) / (np.float32(total) + weight) + shift) * scale)


def _table_key(hashed: int) -> int:
    # CatBoost extends the sign of the 32 bits.
    value = hashed - 2**32 if hashed >= 2**31 else hashed
    return _KEY * (_KEY * value & _MASK) & _MASK


def hash_category(code: int) -> int:
    """Return CatBoost's hash of a category, the lowest 32 bits of CityHash64 of its digits.

    >>> hash_category(7), hash_category(-1), hash_category(123456789)
    (4277023987, 288298918, 1389760245)
    """
    text = str(code).encode()
    size = len(text)
    if size > _WORD:
        first, last = int.from_bytes(text[:_WORD], "little"), int.from_bytes(text[-_WORD:], "little")
        word = last + size & _MASK
        rotated = word >> size | word << 64 - size & _MASK
        return (_mix(first, rotated) ^ last) & 0xFFFFFFFF
    if size >= _HALF_WORD:
        first, last = int.from_bytes(text[:_HALF_WORD], "little"), int.from_bytes(text[-_HALF_WORD:], "little")
        return _mix(size + (first << 3), last) & 0xFFFFFFFF
    start, end = text[0] + (text[size // 2] << 8), size + (text[-1] << 2)
    return _fold(start * _SHORT_START & _MASK ^ end * _SHORT_END & _MASK) * _SHORT_START & 0xFFFFFFFF


def _mix(first: int, second: int) -> int:
    middle = _fold((first ^ second) * _MIX & _MASK)
    return _fold((second ^ middle) * _MIX & _MASK) * _MIX & _MASK


def _fold(value: int) -> int:
    return value ^ value >> 47
