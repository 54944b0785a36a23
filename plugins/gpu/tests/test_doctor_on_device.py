"""The doctor on a machine with a GPU."""

from __future__ import annotations

import pytest

from skewless_gpu.checkup import check_driver, check_gpu_packages
from skewless_gpu.cuda import Device

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]


def test_the_device_is_named_as_cuda_names_it(device: Device) -> None:
    import cupy  # noqa: PLC0415 - only where there is a GPU

    found = cupy.cuda.runtime.getDeviceProperties(0)
    finding = check_driver()
    assert finding.verdict == "ok"
    assert device.name == found["name"].decode()
    assert device.memory == found["totalGlobalMem"]
    assert device.capability == f"{found['major']}.{found['minor']}"
    assert device.name in finding.detail
    assert finding.facts[0]["memory_bytes"] == device.memory


def test_all_packages_are_there() -> None:
    (finding,) = check_gpu_packages()
    assert (finding.verdict, finding.fix) == ("ok", None)
    assert "with CUDA" in finding.detail
