"""Which GPUs NVIDIA's driver shows to this process, asked of the driver itself: nothing has to be installed."""

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
        memory: bytes on it.
        capability: its compute capability, for example ``9.0``.
    """

    name: str
    memory: int
    capability: str


@dataclass(frozen=True, kw_only=True)
class Driver:
    """What the driver says.

    Args:
        devices: those that this process may use (``CUDA_VISIBLE_DEVICES``).
        version: of CUDA that it supports, for example ``13.0``; None: there is no driver.
        problem: why there is no device; None where there is one.
    """

    devices: tuple[Device, ...] = ()
    version: str | None = None
    problem: str | None = None


@cache
def driver() -> Driver:
    """Ask the driver, once."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Driver(problem="no NVIDIA driver is installed")
    return ask(library)


def ask(library: Any) -> Driver:  # noqa: ANN401 - a ctypes library
    """Return what a loaded ``libcuda`` says; a driver that fails shows no device."""
    version = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    said = f"{version.value // 1000}.{version.value % 1000 // 10}"
    code = library.cuInit(0)
    if code != 0:
        return Driver(version=said, problem=f"the driver does not start (CUDA error {code})")
    count = ctypes.c_int()
    if library.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return Driver(version=said, problem="the driver shows no device")
    return Driver(version=said, devices=tuple(_device(library, at) for at in range(count.value)))


def _device(library: Any, at: int) -> Device:  # noqa: ANN401 - a ctypes library
    handle, name, memory = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    library.cuDeviceGet(ctypes.byref(handle), at)
    library.cuDeviceGetName(name, _NAME_BYTES, handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    major, minor = (_attribute(library, which, handle) for which in (_MAJOR, _MINOR))
    return Device(name=name.value.decode(errors="replace"), memory=memory.value, capability=f"{major}.{minor}")


def _attribute(library: Any, which: int, handle: ctypes.c_int) -> int:  # noqa: ANN401 - a ctypes library
    value = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(value), which, handle)
    return value.value
