"""GPUs: what the driver shows, and what is installed that could use them."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from skewless.contract.errors import PackageError
from skewless.operations.checkup.finding import CheckupFinding, doubt, good

if TYPE_CHECKING:
    from skewless.infra.runtimes.cuda import Driver

_GIB = 2**30
_CUDA = (13, 12, 11)
# Per thing that is needed, the packages that may bring it.
_BRINGS: dict[str, Sequence[str]] = {
    "nvforest": [*(f"nvforest-cu{major}" for major in _CUDA), "nvforest"],
    "treelite": ["treelite"],
    "cupy": [*(f"cupy-cuda{major}x" for major in _CUDA), "cupy"],
}
_INSTALL = "pip install 'skewless[gpu]' in an environment without the extra 'cpu'"
Version = Callable[[str], "str | None"]


def check_gpu() -> CheckupFinding:
    """Say which GPUs the driver shows; none is no problem."""
    from skewless.infra.runtimes.cuda import driver

    return judge_driver(driver(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def judge_driver(found: Driver, visible: str | None) -> CheckupFinding:
    """Return what is to be said of the driver.

    Args:
        visible: ``CUDA_VISIBLE_DEVICES``, with which devices are hidden on purpose.
    """
    if found.devices:
        facts = [
            {"name": device.name, "memory_bytes": device.memory, "capability": device.capability}
            for device in found.devices
        ]
        told = [
            f"{device.name}, {device.memory / _GIB:.1f} GiB, compute capability {device.capability}"
            for device in found.devices
        ]
        return good("gpu", f"{'; '.join(told)}; the driver supports CUDA {found.version}", facts)
    detail = f"none: {found.problem}; models are trained and scored on the CPU"
    if found.version is None or visible is not None:
        return good("gpu", detail)
    fix = "see what `nvidia-smi` says: a driver is installed, so a device was expected"
    return doubt("gpu", f"{detail} (CUDA {found.version})", fix)


def check_gpu_packages() -> list[CheckupFinding]:
    """Say what is installed that trains or scores on a GPU; nothing of it is imported."""
    from skewless.infra.runtimes.cuda import driver
    from skewless.infra.runtimes.xgboost_cuda import has_cuda

    try:
        trains = has_cuda()
    except PackageError:
        trains = False
    return list(judge_packages(installed, trains=trains, needed=driver().problem is None))


def judge_packages(version: Version, *, trains: bool, needed: bool) -> Iterator[CheckupFinding]:
    """Yield what is to be said of the packages.

    Args:
        version: the version of an installed package; None: it is not installed.
        trains: XGBoost is built with CUDA.
        needed: there is a GPU.
    """
    found = {thing: _first(names, version) for thing, names in _BRINGS.items()}
    xgboost = f"xgboost {version('xgboost')} with CUDA" if trains else None
    told = [name for name in (*found.values(), xgboost) if name]
    missing = [thing for thing, name in found.items() if name is None] + ([] if trains else ["xgboost with CUDA"])
    detail = ", ".join(told) if told else "none is installed"
    if not needed or not missing:
        yield good("gpu packages", detail)
    else:
        yield doubt("gpu packages", f"{detail}; not installed: {', '.join(missing)}", _INSTALL)
    if version("xgboost") and version("xgboost-cpu"):
        problem = "xgboost and xgboost-cpu are both installed: they overwrite each other's files"
        yield doubt("package xgboost", problem, "make a new environment with one of the extras 'cpu' and 'gpu'")


def installed(package: str) -> str | None:
    """Return the version of an installed package, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first(names: Sequence[str], version: Version) -> str | None:
    return next((f"{name} {version(name)}" for name in names if version(name)), None)
