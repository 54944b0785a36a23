"""Opening the runtime that serves an algorithm's model file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from skewless.contract.errors import PackageError
from skewless.infra.host.plugins import find_plugin
from skewless.infra.runtimes.lightgbm_capi import LightGBMRuntime
from skewless.infra.runtimes.port import Runtime
from skewless.infra.runtimes.tree_arrays import TreeArraysRuntime
from skewless.infra.runtimes.xgboost_capi import XGBoostRuntime


def open_runtime(algorithm: str, model_file: Path) -> Runtime:
    """Return the loaded model, not yet certified; the caller closes it.

    An algorithm that is not ours is opened by what a package registers for it in the entry point group
    ``skewless.runtimes``: a function from the model file to a Runtime.

    Raises:
        PackageError: no runtime serves this algorithm, or the file is missing or not a model.
    """
    if not model_file.is_file():
        raise PackageError(f"model file {model_file.name!r}", "is missing", fix="train and package the model again")
    return _opener(algorithm)(model_file)


def _opener(algorithm: str) -> Callable[[Path], Runtime]:
    ours: dict[str, Callable[[Path], Runtime]] = {
        "lightgbm": LightGBMRuntime.from_file,
        "xgboost": XGBoostRuntime.from_file,
        "sklearn": TreeArraysRuntime.from_file,
    }
    found = ours.get(algorithm) or find_plugin("skewless.runtimes", algorithm)
    if found is None:
        raise PackageError(
            "runtime",
            "serves no such algorithm",
            value=algorithm,
            fix=f"use one of {', '.join(ours)}, or install what registers it in skewless.runtimes",
        )
    opener: Callable[[Path], Runtime] = found
    return opener
