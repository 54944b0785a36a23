"""Reads the tree table of a model by the library that trained it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from skewless.contract.errors import PackageError
from skewless.infra.trees.catboost_model import read_catboost
from skewless.infra.trees.lightgbm_text import read_lightgbm
from skewless.infra.trees.sklearn_arrays import read_sklearn
from skewless.infra.trees.table import TreeTable
from skewless.infra.trees.xgboost_model import read_xgboost

READERS: Mapping[str, Callable[[bytes, str], TreeTable]] = {
    "lightgbm": read_lightgbm,
    "xgboost": read_xgboost,
    "sklearn": read_sklearn,
    "catboost": read_catboost,
}


def read_trees(algorithm: str, model: bytes, name: str, feature_names: Sequence[str] = ()) -> TreeTable:
    """Return the trees of a model.

    Args:
        algorithm: the library that trained it.
        model: bytes of its file, as in a package.
        name: its name in errors.
        feature_names: names of the inputs that replace those of the library; empty: none.

    Raises:
        PackageError: no reader knows the library, the bytes are not a model, or it has parts that no table can hold.
    """
    reader = READERS.get(algorithm)
    if reader is None:
        fix = f"use a model of {', '.join(READERS)}"
        raise PackageError(name, "has trees that cannot be read", value=algorithm, fix=fix)
    table = reader(model, name)
    if not feature_names:
        return table
    if len(feature_names) != table.facts.n_features:
        actual = f"{len(feature_names)} for {table.facts.n_features} inputs"
        raise PackageError(name, "has another number of inputs", value=actual, fix="package the model again")
    return replace(table, facts=replace(table.facts, feature_names=tuple(feature_names)))
