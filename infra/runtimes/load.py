"""Opening the runtime that serves an algorithm's model file."""

from __future__ import annotations

from pathlib import Path

from infra.runtimes.lightgbm_capi import LightGBMRuntime
from infra.runtimes.port import Runtime
from infra.runtimes.xgboost_capi import XGBoostRuntime
from skewless.errors import PackageError


def open_runtime(algorithm: str, model_file: Path) -> Runtime:
    """Return the loaded model, not yet certified; the caller closes it.

    Raises:
        PackageError: no runtime serves this algorithm, or the file is missing or not a model.
    """
    if not model_file.is_file():
        raise PackageError(f"model file {model_file.name!r}", "is missing", fix="train and package the model again")
    if algorithm == "lightgbm":
        return LightGBMRuntime.from_file(model_file)
    if algorithm == "xgboost":
        return XGBoostRuntime.from_file(model_file)
    raise PackageError("runtime", "serves no such algorithm", value=algorithm, fix="use one of lightgbm, xgboost")
