"""The check of each run of `make test`: the runtimes are registered, and without a device the reason is said."""

from __future__ import annotations

import pytest

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.candidates import find_candidates, find_providers
from skewless_gpu import nvforest, xgboost_cuda
from skewless_gpu.cuda import Driver
from tests.worlds.model_cases import ModelCase

ABSENT = Driver(problem="no NVIDIA driver is installed")


def test_a_model_that_asks_for_a_device_is_told_that_there_is_none(
    lightgbm_binary: ModelCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (nvforest, xgboost_cuda):
        monkeypatch.setattr(module, "driver", lambda: ABSENT)
    assert [each.name for each in find_providers("gpu")] == ["nvforest-gpu", "xgboost-cuda"]
    assert [each.name for each in find_providers("cpu")] == ["nvforest-cpu"]
    assert not any(each.can_train() for each in find_providers("gpu"))
    assert find_candidates("lightgbm", "auto", lightgbm_binary.model_file, "gpu") == []
    (refused,) = find_candidates("lightgbm", "cuda", lightgbm_binary.model_file, "gpu")
    with pytest.raises(PackageError, match="no NVIDIA driver is installed"):
        refused.open()
