"""What may be tried on a machine, by what the model asks for and what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from skewless.infra.runtimes import candidates as subject
from skewless.infra.runtimes.candidates import RuntimeCandidate, ScoringTarget, find_candidates
from skewless.infra.runtimes.cuda import Device, Driver

PATH = Path("model.txt")
NONE = Driver(problem="no NVIDIA driver is installed")
ONE = Driver(devices=(Device(name="H100", memory=80 << 30, capability="9.0"),), version="13.0")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.runtimes.nvforest.is_installed", lambda: True)
    monkeypatch.setattr("skewless.infra.runtimes.xgboost_cuda.is_built_in", lambda: True)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.runtimes.nvforest.is_installed", lambda: False)
    monkeypatch.setattr("skewless.infra.runtimes.xgboost_cuda.is_built_in", lambda: False)


def found(algorithm: str, device: subject.Device, second: subject.Second, driver: Driver) -> list[RuntimeCandidate]:
    return find_candidates(algorithm, device, PATH, ScoringTarget(second=second, driver=lambda: driver))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_on_a_gpu(device: subject.Device) -> None:
    assert [item.name for item in found("lightgbm", device, "gpu", ONE)] == ["nvforest-gpu"]
    assert [item.name for item in found("xgboost", device, "gpu", ONE)] == ["nvforest-gpu", "xgboost-cuda"]
    assert all(item.open is not None for item in found("xgboost", device, "gpu", ONE))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost", "sklearn", "another"])
def test_a_model_for_the_cpu_and_a_server_that_wants_none_ask_nothing(algorithm: str) -> None:
    def refuse() -> Driver:
        raise AssertionError

    assert find_candidates(algorithm, "cpu", PATH, ScoringTarget(second="gpu", driver=refuse)) == []
    assert find_candidates(algorithm, "cpu", PATH, ScoringTarget(second="cpu", driver=refuse)) == []
    for device in ("auto", "cpu", "cuda"):
        assert find_candidates(algorithm, device, PATH, ScoringTarget(second="none", driver=refuse)) == []


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost"])
def test_on_the_cpu_no_driver_is_asked(algorithm: str) -> None:
    def refuse() -> Driver:
        raise AssertionError

    (only,) = find_candidates(algorithm, "auto", PATH, ScoringTarget(second="cpu", driver=refuse))
    assert only.name == "nvforest-cpu"
    assert only.reopens
    assert find_candidates("sklearn", "auto", PATH, ScoringTarget(second="cpu", driver=refuse)) == []


@pytest.mark.usefixtures("installed")
def test_without_a_driver_only_a_model_that_asks_for_a_gpu_misses_it() -> None:
    assert found("xgboost", "auto", "gpu", NONE) == []
    (missed,) = found("xgboost", "cuda", "gpu", NONE)
    assert (missed.name, missed.open, missed.problem) == ("gpu", None, "no NVIDIA driver is installed")


@pytest.mark.parametrize("second", ["lignum", "lignum-compiled"])
def test_lignum_is_tried_for_its_libraries_whatever_the_device(
    second: subject.Second, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Driver:
        raise AssertionError

    monkeypatch.setattr("skewless.infra.runtimes.lignum.is_installed", lambda: True)
    place = ScoringTarget(second=second, driver=refuse)
    for device in ("auto", "cpu", "cuda"):
        for algorithm in ("lightgbm", "xgboost", "catboost"):
            (only,) = find_candidates(algorithm, device, PATH, place)
            assert (only.name, only.is_inline, only.reopens, only.problem) == (second, True, False, None)
        assert find_candidates("sklearn", device, PATH, place) == []
    monkeypatch.setattr("skewless.infra.runtimes.lignum.is_installed", lambda: False)
    (missed,) = find_candidates("lightgbm", "auto", PATH, place)
    assert (missed.open, missed.problem) == (None, "is not installed: pip install 'skewless[lignum]'")


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost"])
def test_with_a_device_and_nothing_installed_the_extra_is_named(algorithm: str) -> None:
    assert found(algorithm, "auto", "gpu", ONE) == []
    assert found(algorithm, "auto", "cpu", ONE) == []
    (missed,) = found(algorithm, "cuda", "gpu", ONE)
    assert missed.open is None
    assert f"scores {algorithm} on a GPU: pip install 'skewless[gpu]'" in str(missed.problem)


@pytest.mark.usefixtures("installed")
def test_an_algorithm_of_somebody_else_is_scored_by_its_own_runtime() -> None:
    assert found("sklearn", "auto", "gpu", ONE) == []
    (missed,) = found("another", "cuda", "gpu", ONE)
    assert missed.open is None


@pytest.mark.usefixtures("installed")
def test_alone_it_works_in_this_process_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[object, ...]] = []
    monkeypatch.setattr("skewless.infra.runtimes.child.NvForestRuntime", lambda *given: opened.append(given))
    monkeypatch.setattr(subject, "ChildRuntime", lambda *given, **more: opened.append((*given, more)))
    for alone in (True, False):
        place = ScoringTarget(alone=alone, driver=lambda: ONE, child_environment={"A": "1"})
        (only,) = find_candidates("lightgbm", "auto", PATH, place)
        assert only.reopens is not alone
        assert only.open is not None
        only.open()
    assert opened == [
        ("lightgbm", PATH, "gpu"),
        ("lightgbm", PATH, "gpu", {"kind": "nvforest", "environment": {"A": "1"}}),
    ]


@pytest.mark.usefixtures("installed")
def test_xgboost_s_own_code_works_in_a_child_too_unless_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        "skewless.infra.runtimes.xgboost_cuda.XGBoostCudaRuntime.from_file", lambda path: opened.append((path,))
    )
    monkeypatch.setattr(subject, "ChildRuntime", lambda *given, **more: opened.append((*given, more)))
    for alone in (True, False):
        _, item = find_candidates("xgboost", "cuda", PATH, ScoringTarget(alone=alone, driver=lambda: ONE))
        assert item.reopens is not alone
        assert item.open is not None
        item.open()
    assert opened == [(PATH,), ("xgboost", PATH, "gpu", {"kind": "xgboost-cuda", "environment": {}})]
