"""What may be tried on a machine, by what the model asks for and what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes import candidates as subject
from skewless.infra.models.runtimes.candidates import RuntimeCandidate, find_candidates
from skewless_gpu.cuda import Device, Driver

PATH = Path("model.txt")
NONE = Driver(problem="no NVIDIA driver is installed")
ONE = Driver(devices=(Device(name="H100", memory=80 << 30, capability="9.0"),), version="13.0")


def set_machine(patch: pytest.MonkeyPatch, driver: Driver, *, is_installed: bool) -> None:
    for module in ("nvforest", "xgboost_cuda"):
        patch.setattr(f"skewless_gpu.{module}.driver", lambda: driver)
    patch.setattr("skewless_gpu.nvforest.is_installed", lambda: is_installed)
    patch.setattr("skewless_gpu.xgboost_cuda.is_built_in", lambda: is_installed)


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    set_machine(monkeypatch, ONE, is_installed=True)


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    set_machine(monkeypatch, NONE, is_installed=True)


def usable(algorithm: str, device: subject.Device, second: str) -> list[str]:
    """Return the names of the candidates, which can all be tried."""
    found = find_candidates(algorithm, device, PATH, second)
    assert [item.problem for item in found] == [None] * len(found)
    return [item.name for item in found]


def missing(algorithm: str, device: subject.Device, second: str) -> RuntimeCandidate:
    """Return the only candidate, which cannot be tried."""
    (only,) = find_candidates(algorithm, device, PATH, second)
    assert only.problem is not None
    return only


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_on_a_gpu(device: subject.Device) -> None:
    assert usable("lightgbm", device, "gpu") == ["nvforest-gpu"]
    assert usable("xgboost", device, "gpu") == ["nvforest-gpu", "xgboost-cuda"]


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost", "sklearn", "another"])
def test_a_model_for_the_cpu_and_a_server_that_wants_none_have_no_candidates(algorithm: str) -> None:
    assert usable(algorithm, "cpu", "gpu") == usable(algorithm, "cpu", "cpu") == []
    for device in ("auto", "cpu", "cuda"):
        assert usable(algorithm, device, "none") == []


@pytest.mark.usefixtures("without_gpu")
def test_on_the_cpu_nvforest_needs_no_driver() -> None:
    assert usable("lightgbm", "auto", "cpu") == usable("xgboost", "cuda", "cpu") == ["nvforest-cpu"]
    assert usable("sklearn", "auto", "cpu") == []


@pytest.mark.usefixtures("without_gpu")
def test_without_a_driver_only_a_model_that_asks_for_a_gpu_misses_it() -> None:
    assert usable("xgboost", "auto", "gpu") == []
    found = missing("xgboost", "cuda", "gpu")
    assert (found.name, found.problem) == ("gpu", "no NVIDIA driver is installed")
    with pytest.raises(PackageError, match="no NVIDIA driver is installed"):
        found.open()


@pytest.mark.parametrize("second", ["lignum", "lignum-compiled"])
def test_lignum_is_tried_for_its_libraries_whatever_the_device(second: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless_lignum.runtime.is_installed", lambda: True)
    for device in ("auto", "cpu", "cuda"):
        for algorithm in ("lightgbm", "xgboost", "catboost"):
            assert usable(algorithm, device, second) == [second]
        assert usable("sklearn", device, second) == []
    monkeypatch.setattr("skewless_lignum.runtime.is_installed", lambda: False)
    assert missing("lightgbm", "auto", second).problem == "is not installed: pip install 'skewless[lignum]'"


@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost"])
def test_with_a_device_and_nothing_installed_the_extra_is_named(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_machine(monkeypatch, ONE, is_installed=False)
    assert usable(algorithm, "auto", "gpu") == []
    for found in (missing(algorithm, "cuda", "gpu"), missing(algorithm, "auto", "cpu")):
        assert "is not installed: pip install 'skewless[gpu]'" in str(found.problem)


@pytest.mark.usefixtures("with_gpu")
def test_an_algorithm_of_somebody_else_is_scored_by_its_own_runtime() -> None:
    assert usable("sklearn", "auto", "gpu") == []
    assert missing("another", "cuda", "gpu").problem == "no installed package scores another on a GPU"


def test_a_second_runtime_that_nobody_provides_is_named() -> None:
    found = missing("lightgbm", "auto", "lignm")
    assert (found.name, "or the package that registers it" in str(found.problem)) == ("lignm", True)


@pytest.mark.usefixtures("with_gpu")
def test_each_opens_the_model_file_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[object, ...]] = []
    monkeypatch.setattr("skewless_gpu.nvforest.NvForestRuntime", lambda *given: opened.append(given))
    monkeypatch.setattr("skewless_gpu.xgboost_cuda.XGBoostCudaRuntime.from_file", lambda path: opened.append((path,)))
    for second in ("gpu", "cpu"):
        for item in find_candidates("xgboost", "auto", PATH, second):
            item.open()
    assert opened == [("xgboost", PATH, "gpu"), (PATH,), ("xgboost", PATH, "cpu")]
