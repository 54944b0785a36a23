"""Python, the installed packages, and the native libraries of the model runtimes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Callable, Iterable

from skewless.contract.errors import PackageError
from skewless.operations.checkup.finding import CheckupFinding, bad, doubt, from_error, good

_OLDEST, _TOO_NEW = (3, 11), (3, 14)
_OPENMP = ("libgomp", "libomp")


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> CheckupFinding:
    """Return whether skewless supports this Python.

    >>> check_python((3, 10)).verdict
    'fail'
    """
    if _OLDEST <= version < _TOO_NEW:
        return good("python", platform.python_version())
    text = ".".join(map(str, version))
    return bad("python", f"{text} is not supported", "make a new environment with Python 3.11, 3.12 or 3.13")


def check_packages() -> list[CheckupFinding]:
    """Return the required packages that are missing or have a wrong version; none is imported."""
    try:
        required = importlib.metadata.requires("skewless") or []
    except importlib.metadata.PackageNotFoundError:
        return [doubt("packages", "skewless itself is not installed", "pip install -e . in the checkout")]
    return list(judge_packages(required, _installed))


def judge_packages(required: Iterable[str], installed: Callable[[str], str | None]) -> Iterable[CheckupFinding]:
    """Yield a finding for each unmet requirement outside of extras, and a summary of the met requirements."""
    from packaging.requirements import Requirement

    packages = []
    for line in required:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, version = requirement.name, installed(requirement.name)
        fix = f'pip install "{name}{requirement.specifier}"'
        if version is None:
            yield bad(f"package {name}", "is not installed", fix)
        elif not requirement.specifier.contains(version, prereleases=True):
            yield bad(f"package {name}", f"{version} is not {requirement.specifier}", fix)
        else:
            packages.append(f"{name} {version}")
    yield good("packages", ", ".join(packages) or "none needed")


def check_runtimes() -> list[CheckupFinding]:
    """Return whether the native libraries that score models load."""
    from skewless.infra.runtimes.lightgbm_capi import load_library as load_lightgbm
    from skewless.infra.runtimes.xgboost_capi import load_library as load_xgboost

    findings = [judge_runtime("lightgbm", lambda: load_lightgbm().version)]
    if importlib.util.find_spec("xgboost") is None:
        fix = "only for algorithm='xgboost': pip install 'skewless[cpu]'"
        return [*findings, doubt("runtime xgboost", "is not installed", fix)]
    return [*findings, judge_runtime("xgboost", lambda: load_xgboost().version)]


def judge_runtime(name: str, load: Callable[[], str]) -> CheckupFinding:
    """Return the result of loading a library, with the fix for a missing OpenMP."""
    try:
        return good(f"runtime {name}", f"{load()} loads")
    except PackageError as error:
        finding = from_error(f"runtime {name}", error)
    if not any(library in finding.detail for library in _OPENMP):
        return finding
    return bad(
        finding.name, finding.detail, "brew install libomp" if sys.platform == "darwin" else "apt-get install libgomp1"
    )


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
