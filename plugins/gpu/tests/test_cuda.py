"""What NVIDIA's driver says, asked of a library that stands in for it."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from skewless_gpu import cuda
from skewless_gpu.cuda import Device, Driver, query_driver


class StandInLibrary:
    """Functions of ``libcuda``, which write their answers through pointers."""

    def __init__(self, devices: list[Device], *, init: int = 0, count: int = 0) -> None:
        self._devices = devices
        self._init = init
        self._count = count

    def cuDriverGetVersion(self, out: Any) -> int:  # noqa: ANN401, N802 - as the driver names it
        out._obj.value = 13_010
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self._init

    def cuDeviceGetCount(self, out: Any) -> int:  # noqa: ANN401, N802
        assert self._init == 0, "asked though it did not start"
        out._obj.value = len(self._devices)
        return self._count

    def cuDeviceGet(self, out: Any, at: int) -> int:  # noqa: ANN401, N802
        out._obj.value = 40 + at
        return 0

    def cuDeviceGetName(self, name: Any, size: int, handle: ctypes.c_int) -> int:  # noqa: ANN401, N802
        text = self._devices[handle.value - 40].name.encode()
        assert len(text) < size
        name.value = text
        return 0

    def cuDeviceTotalMem_v2(self, out: Any, handle: ctypes.c_int) -> int:  # noqa: ANN401, N802
        out._obj.value = self._devices[handle.value - 40].memory
        return 0

    def cuDeviceGetAttribute(self, out: Any, which: int, handle: ctypes.c_int) -> int:  # noqa: ANN401, N802
        major, _, minor = self._devices[handle.value - 40].capability.partition(".")
        out._obj.value = int({75: major, 76: minor}[which])
        return 0


TWO = [
    Device(name="NVIDIA H100 80GB HBM3", memory=85_520_809_984, capability="9.0"),
    Device(name="NVIDIA GeForce RTX 3060", memory=12_622_168_064, capability="8.6"),
]


def test_two_devices() -> None:
    assert query_driver(StandInLibrary(TWO)) == Driver(devices=tuple(TWO), version="13.1", problem=None)


def test_no_device_is_shown() -> None:
    assert query_driver(StandInLibrary([])) == Driver(version="13.1", problem="the driver has no device")


def test_a_driver_that_fails_to_count_shows_none() -> None:
    assert query_driver(StandInLibrary(TWO, count=999)) == Driver(version="13.1", problem="the driver has no device")


def test_a_driver_that_does_not_start_names_its_error() -> None:
    found = query_driver(StandInLibrary(TWO, init=803))
    assert (found.devices, found.version) == ((), "13.1")
    assert found.problem == "the driver does not start (CUDA error 803)"


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert cuda.driver.__wrapped__() == Driver(problem="no NVIDIA driver is installed")
