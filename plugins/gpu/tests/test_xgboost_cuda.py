"""XGBoost on a GPU where there is none: refused by name, whatever is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import xgboost as xgb

from skewless.contract.errors import PackageError
from skewless_gpu.xgboost_cuda import XGBoostCudaRuntime


@pytest.mark.parametrize("model", [b"", b"no model", b"{}"])
def test_what_is_no_model_is_refused(model: bytes) -> None:
    with pytest.raises(PackageError, match="the model"):
        XGBoostCudaRuntime(model, "the model")


def test_without_cupy_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    rows = np.random.default_rng(1).normal(size=(50, 2))
    booster = xgb.train({"nthread": 1}, xgb.DMatrix(rows, label=rows[:, 0]), 2)
    with pytest.raises(PackageError, match=r"the model: cannot be opened on a GPU.*cupy"):
        XGBoostCudaRuntime(bytes(booster.save_raw("json")), "the model")
