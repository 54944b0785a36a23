"""What `skewless doctor` says of GPUs, and of the packages that train or score on one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from skewless.operations.health.checkup.packages import Version, installed
from skewless.operations.health.finding import CheckFinding, doubt, good
from skewless_gpu.cuda import Driver, driver
from skewless_gpu.xgboost_cuda import is_cuda_built

_GIB = 2**30
_CUDA = (13, 12, 11)
# Packages that provide each library.
_PROVIDERS: dict[str, Sequence[str]] = {
    "nvforest": [*(f"nvforest-cu{major}" for major in _CUDA), "nvforest"],
    "treelite": ["treelite"],
    "cupy": [*(f"cupy-cuda{major}x" for major in _CUDA), "cupy"],
}
_INSTALL = "pip install 'skewless[gpu]' in an environment without the extra 'cpu'"


def check_gpu() -> list[CheckFinding]:
    """Return the GPUs of the driver, where none is fine, and the installed packages for them; none is imported."""
    return [check_driver(), *check_gpu_packages()]


def check_driver() -> CheckFinding:
    """Return the GPUs of the driver."""
    return judge_driver(driver(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def judge_driver(driver: Driver, visible: str | None) -> CheckFinding:
    """Return the finding for a driver.

    Args:
        visible: ``CUDA_VISIBLE_DEVICES``, which hides devices on purpose.
    """
    if driver.devices:
        facts = [
            {"name": device.name, "memory_bytes": device.memory, "capability": device.capability}
            for device in driver.devices
        ]
        texts = [
            f"{device.name}, {device.memory / _GIB:.1f} GiB, compute capability {device.capability}"
            for device in driver.devices
        ]
        return good("gpu", f"{'; '.join(texts)}; the driver supports CUDA {driver.version}", facts)
    detail = f"none: {driver.problem}; models are trained and scored on the CPU"
    if driver.version is None or visible is not None:
        return good("gpu", detail)
    fix = "run `nvidia-smi`: a driver is installed, so it should show a device"
    return doubt("gpu", f"{detail} (CUDA {driver.version})", fix)


def check_gpu_packages() -> list[CheckFinding]:
    """Return the installed packages that train or score on a GPU; none is imported."""
    return list(judge_gpu_packages(installed, trains=is_cuda_built(), needed=driver().problem is None))


def judge_gpu_packages(version: Version, *, trains: bool, needed: bool) -> Iterator[CheckFinding]:
    """Yield the findings for the packages of GPUs.

    Args:
        version: returns the version of an installed package; None: it is not installed.
        trains: XGBoost is built with CUDA.
        needed: there is a GPU.
    """
    packages = {library: _first(names, version) for library, names in _PROVIDERS.items()}
    xgboost = f"xgboost {version('xgboost')} with CUDA" if trains else None
    texts = [name for name in (*packages.values(), xgboost) if name]
    missing = [library for library, name in packages.items() if name is None] + (
        [] if trains else ["xgboost with CUDA"]
    )
    detail = ", ".join(texts) if texts else "none is installed"
    if not needed or not missing:
        yield good("gpu packages", detail)
    else:
        yield doubt("gpu packages", f"{detail}; not installed: {', '.join(missing)}", _INSTALL)
    if version("xgboost") and version("xgboost-cpu"):
        problem = "xgboost and xgboost-cpu are both installed: they overwrite each other's files"
        yield doubt("package xgboost", problem, "make a new environment with one of the extras 'cpu' and 'gpu'")


def _first(names: Sequence[str], version: Version) -> str | None:
    return next((f"{name} {version(name)}" for name in names if version(name)), None)
