"""Lists the GPUs that NVIDIA's driver shows to this process, through the driver's own library: needs no package."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

_NAME_BYTES = 100
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU.

    Args:
        memory: its bytes of memory.
        capability: its compute capability, for example ``9.0``.
    """

    name: str
    memory: int
    capability: str


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The state of the GPU driver.

    Args:
        devices: the GPUs that this process may use (``CUDA_VISIBLE_DEVICES``).
        version: CUDA version that it supports, for example ``13.0``; None: no driver is installed.
        problem: why no device is available; None: some device is.
    """

    devices: tuple[Device, ...] = ()
    version: str | None = None
    problem: str | None = None


@cache
def driver() -> Driver:
    """Return the driver's state; it is queried once."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Driver(problem="no NVIDIA driver is installed")
    return query_driver(library)


def query_driver(library: Any) -> Driver:  # noqa: ANN401 - a ctypes library
    """Return the state of a loaded ``libcuda``; a driver that fails has no devices."""
    version = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    cuda_version = f"{version.value // 1000}.{version.value % 1000 // 10}"
    code = library.cuInit(0)
    if code != 0:
        return Driver(version=cuda_version, problem=f"the driver does not start (CUDA error {code})")
    count = ctypes.c_int()
    if library.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return Driver(version=cuda_version, problem="the driver has no device")
    return Driver(version=cuda_version, devices=tuple(_device(library, at) for at in range(count.value)))


def _device(library: Any, index: int) -> Device:  # noqa: ANN401 - a ctypes library
    handle, name, memory = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, _NAME_BYTES, handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, handle)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, handle)
    capability = f"{major.value}.{minor.value}"
    return Device(name=name.value.decode(errors="replace"), memory=memory.value, capability=capability)
