"""What the doctor says of GPUs, of what is installed for them, and of runtimes that were tried."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from skewless.infra.models.runtimes.certification import Certificate
from skewless.infra.models.runtimes.choice import Role, RuntimeTrial
from skewless.operations.health.checkup.packages import judge_trials
from skewless_gpu.checkup import check_gpu_packages, judge_driver, judge_gpu_packages
from skewless_gpu.cuda import Device, Driver

H100 = Device(name="NVIDIA H100", memory=80 * 2**30, capability="9.0")
ALL: Mapping[str, str] = {"nvforest-cu12": "26.10.0", "treelite": "4.7.2", "cupy-cuda12x": "13.6.0", "xgboost": "3.2.0"}


def tried(runtime: str, role: Role, *, reason: str | None = None) -> RuntimeTrial:
    if role == "refused":
        return RuntimeTrial(runtime=runtime, role=role, reason=reason)
    return RuntimeTrial(
        runtime=runtime,
        role=role,
        certificate=Certificate(runtime_id=runtime, rows=718, bit_equal=True, largest_difference=0.0),
        rows=64,
        seconds=0.001,
    )


OWN = tried("lightgbm-capi-4.7.0", "own")


def test_each_device_is_named_with_its_memory_and_capability() -> None:
    finding = judge_driver(Driver(devices=(H100, H100), version="13.0"), None)
    one = "NVIDIA H100, 80.0 GiB, compute capability 9.0"
    assert (finding.verdict, finding.detail) == ("ok", f"{one}; {one}; the driver supports CUDA 13.0")
    assert finding.facts == [{"name": "NVIDIA H100", "memory_bytes": 80 * 2**30, "capability": "9.0"}] * 2
    assert finding.as_dict()["facts"] == finding.facts


def test_no_driver_is_no_problem() -> None:
    finding = judge_driver(Driver(problem="no NVIDIA driver is installed"), None)
    assert finding.as_dict() == {
        "name": "gpu",
        "verdict": "ok",
        "detail": "none: no NVIDIA driver is installed; models are trained and scored on the CPU",
        "fix": None,
    }


@pytest.mark.parametrize(("visible", "verdict"), [(None, "warn"), ("", "ok"), ("-1", "ok")])
def test_a_driver_without_a_device_is_doubtful_unless_devices_are_hidden(visible: str | None, verdict: str) -> None:
    finding = judge_driver(Driver(version="12.4", problem="the driver shows no device"), visible)
    assert (finding.verdict, "the driver shows no device" in finding.detail) == (verdict, True)
    assert bool(finding.fix) is (verdict == "warn")


def test_packages_for_a_gpu_are_named() -> None:
    (finding,) = judge_gpu_packages(ALL.get, trains=True, needed=True)
    assert (finding.verdict, finding.detail) == (
        "ok",
        "nvforest-cu12 26.10.0, treelite 4.7.2, cupy-cuda12x 13.6.0, xgboost 3.2.0 with CUDA",
    )


def test_packages_are_missed_only_where_there_is_a_gpu() -> None:
    nothing: Mapping[str, str] = {}
    (absent,) = judge_gpu_packages(nothing.get, trains=False, needed=False)
    assert (absent.verdict, absent.detail, absent.fix) == ("ok", "none is installed", None)
    some: Mapping[str, str] = {"treelite": "4.7.2", "xgboost-cpu": "3.2.0"}
    (missed,) = judge_gpu_packages(some.get, trains=False, needed=True)
    assert missed.verdict == "warn"
    assert missed.detail == "treelite 4.7.2; not installed: nvforest, cupy, xgboost with CUDA"
    assert "skewless[gpu]" in (missed.fix or "")


def test_two_xgboosts_in_one_environment_are_doubtful() -> None:
    both: Mapping[str, str] = {**ALL, "xgboost-cpu": "3.2.0"}
    _, finding = judge_gpu_packages(both.get, trains=True, needed=True)
    assert (finding.name, finding.verdict) == ("package xgboost", "warn")
    assert "overwrite" in finding.detail


def test_the_packages_of_this_environment_bring_one_xgboost() -> None:
    (finding,) = check_gpu_packages()
    assert finding.name == "gpu packages"


def test_a_runtime_that_scores_is_told_with_its_time() -> None:
    finding = judge_trials("late", "000003", [OWN, tried("nvforest-gpu-26.10.0", "chosen")])
    assert (finding.name, finding.verdict) == ("scoring late", "ok")
    assert finding.detail == (
        "version 000003: lightgbm-capi-4.7.0 (own): 64 rows in 1 ms; nvforest-gpu-26.10.0 (chosen): 64 rows in 1 ms"
    )
    assert [(fact["runtime"], fact["role"], fact["rows"], fact["seconds"]) for fact in finding.facts] == [
        ("lightgbm-capi-4.7.0", "own", 64, 0.001),
        ("nvforest-gpu-26.10.0", "chosen", 64, 0.001),
    ]


def test_a_slower_runtime_is_no_problem_and_a_refused_one_is_told_why() -> None:
    slower = judge_trials("late", "000003", [OWN, tried("nvforest-gpu-26.10.0", "slower")])
    assert (slower.verdict, "nvforest-gpu-26.10.0 (slower): 64 rows" in slower.detail) == ("ok", True)
    reason = "runtime 'nvforest-gpu-26.10.0': differs from the library on 12 of 718 rows, by up to 0.5"
    refused = tried("nvforest-gpu", "refused", reason=reason)
    alone = judge_trials("late", "000003", [OWN, refused])
    assert (alone.verdict, f"nvforest-gpu is rejected: {reason}" in alone.detail) == ("warn", True)
    beside = judge_trials("late", "000003", [OWN, tried("nvforest-gpu-26.10.0", "chosen"), refused])
    assert beside.verdict == "ok"
