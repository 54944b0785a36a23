"""Reads the tree table of a model by the library that trained it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from skewless.contract.errors import PackageError
from skewless_export.lightgbm_text import read_lightgbm
from skewless_export.table import TreeTable
from skewless_export.xgboost_model import read_xgboost


def _read_catboost(model: bytes, name: str) -> TreeTable:
    from skewless_export.catboost_model import read_catboost  # noqa: PLC0415 - builds on the plug-in of CatBoost

    return read_catboost(model, name)


def _read_sklearn(model: bytes, name: str) -> TreeTable:
    from skewless_export.sklearn_model import read_sklearn  # noqa: PLC0415 - builds on the plug-in of scikit-learn

    return read_sklearn(model, name)


READERS: Mapping[str, Callable[[bytes, str], TreeTable]] = {
    "lightgbm": read_lightgbm,
    "xgboost": read_xgboost,
    "sklearn": _read_sklearn,
    "catboost": _read_catboost,
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
    try:
        table = reader(model, name)
    except ImportError as error:
        fix = f"pip install 'skewless[{algorithm}]'"
        raise PackageError(name, "has trees that cannot be read", value=str(error), fix=fix) from error
    if not feature_names:
        return table
    if len(feature_names) != table.facts.n_features:
        actual = f"{len(feature_names)} for {table.facts.n_features} inputs"
        raise PackageError(name, "has another number of inputs", value=actual, fix="package the model again")
    return replace(table, facts=replace(table.facts, feature_names=tuple(feature_names)))
