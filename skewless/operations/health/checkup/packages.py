"""Python, the installed packages, and the runtimes that score each champion here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from skewless.contract.errors import PackageError, SkewlessError
from skewless.operations.health.finding import CheckFinding, bad, doubt, from_error, good

if TYPE_CHECKING:
    from skewless.infra.models.packages.package import Package
    from skewless.infra.models.packages.store import PackageStore
    from skewless.infra.models.runtimes.candidates import ScoringTarget
    from skewless.infra.models.runtimes.choice import RuntimeTrial

_OLDEST, _TOO_NEW = (3, 11), (3, 14)
_OPENMP = ("libgomp", "libomp")
Version = Callable[[str], "str | None"]


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> CheckFinding:
    """Return whether skewless supports this Python.

    >>> check_python((3, 10)).verdict
    'fail'
    """
    if _OLDEST <= version < _TOO_NEW:
        return good("python", platform.python_version())
    text = ".".join(map(str, version))
    return bad("python", f"{text} is not supported", "make a new environment with Python 3.11, 3.12 or 3.13")


def check_packages() -> list[CheckFinding]:
    """Return the required packages that are missing or have a wrong version; none is imported.

    Without Feast this machine can serve, and needs the packages of the extra ``serve`` alone.
    """
    try:
        required = importlib.metadata.requires("skewless") or []
    except importlib.metadata.PackageNotFoundError:
        return [doubt("packages", "skewless itself is not installed", "pip install -e . in the checkout")]
    if installed("feast"):
        return list(judge_packages(required, installed, ("", "project")))  # which has those of `serve`, too
    detail = "is not installed: this machine serves, but cannot apply, train or run jobs"
    lacking = doubt("extra project", detail, "only for those: pip install 'skewless[project]'")
    return [*judge_packages(required, installed, ("", "serve")), lacking]


def judge_packages(required: Iterable[str], version: Version, extras: Sequence[str] = ("",)) -> Iterator[CheckFinding]:
    """Yield a finding for each unmet requirement of some extras, and a summary of the met requirements.

    Args:
        version: returns the version of an installed package; None: it is not installed.
        extras: their names; "" means the requirements outside of extras.
    """
    from packaging.requirements import Requirement

    packages = []
    for line in required:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name, found = requirement.name, version(requirement.name)
        fix = f'pip install "{name}{requirement.specifier}"'
        if found is None:
            yield bad(f"package {name}", "is not installed", fix)
        elif not requirement.specifier.contains(found, prereleases=True):
            yield bad(f"package {name}", f"{found} is not {requirement.specifier}", fix)
        else:
            packages.append(f"{name} {found}")
    yield good("packages", ", ".join(packages) or "none needed")


def check_runtimes() -> list[CheckFinding]:
    """Return whether the native libraries that score models load."""
    from skewless.infra.models.runtimes.lightgbm_capi import load_library as load_lightgbm
    from skewless.infra.models.runtimes.xgboost_capi import load_library as load_xgboost

    findings = [judge_runtime("lightgbm", lambda: load_lightgbm().version)]
    if importlib.util.find_spec("xgboost") is None:
        fix = "only for algorithm='xgboost': pip install 'skewless[cpu]'"
        return [*findings, doubt("runtime xgboost", "is not installed", fix)]
    return [*findings, judge_runtime("xgboost", lambda: load_xgboost().version)]


def judge_runtime(name: str, load: Callable[[], str]) -> CheckFinding:
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


def check_plugins() -> Iterator[CheckFinding]:
    """Yield what installed plug-ins find: an entry point of ``skewless.checkups`` is a function without arguments."""
    from skewless.infra.platform.host.plugins import find_plugin, plugin_names

    for name in plugin_names("skewless.checkups"):
        try:
            check: Callable[[], Iterable[CheckFinding]] | None = find_plugin("skewless.checkups", name)
            yield from () if check is None else check()
        except SkewlessError as error:
            yield from_error(f"checkup {name}", error)


def installed(package: str) -> str | None:
    """Return the version of an installed package, None if it is not installed."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    # Forty packages: parsing their whole metadata takes a tenth of the command's time.
    head = (distribution.read_text("METADATA") or "").partition("\n\n")[0].splitlines()
    versions = [line.removeprefix("Version:").strip() for line in head if line.startswith("Version:")]
    return versions[0] if versions else distribution.version


def check_scoring(store: PackageStore, second: str) -> list[CheckFinding]:
    """Return the runtimes of each champion; a model is loaded only if it has a second runtime.

    Args:
        second: the setting ``second_runtime``.
    """
    from skewless.infra.models.runtimes.candidates import ScoringTarget

    target = ScoringTarget(second=second)
    try:
        champions = [(name, store.aliases.get(name, "champion")) for name in store.packages.list_models()]
    except SkewlessError:
        return []  # the database is down: the check of the plan reports it
    return list(_findings(store, champions, target))


def _findings(
    store: PackageStore, champions: Sequence[tuple[str, str | None]], target: ScoringTarget
) -> Iterator[CheckFinding]:
    from skewless.infra.models.packages.package import open_package
    from skewless.infra.models.runtimes.candidates import MISSING_GPU, find_candidates

    single = []
    for name, version in champions:
        if version is None:
            continue
        try:
            package = open_package(store, name, version)
            others = find_candidates(package.spec.algorithm, package.spec.device, package.model_file, target.second)
            if not others:
                single.append(f"{name} {version} ({package.spec.algorithm})")
            elif others[0].name == MISSING_GPU:
                yield judge_missing_gpu(package, "; ".join(str(candidate.problem) for candidate in others))
            else:
                yield _try_runtimes(store, package, target)
        except SkewlessError as error:
            yield from_error(f"scoring {name}", error)
    if single:
        yield good("scoring", f"only by its own library: {', '.join(single)}")


def judge_missing_gpu(package: Package, problem: str) -> CheckFinding:
    """Return the finding for a model that requests a GPU that is not available."""
    detail = f"version {package.version} requests a GPU that is not available, so its own library scores it: {problem}"
    return doubt(f"scoring {package.name}", detail, "fix the finding `gpu`, or set ModelSpec.device='auto'")


def _try_runtimes(store: PackageStore, package: Package, target: ScoringTarget) -> CheckFinding:
    from skewless.infra.models.packages.served_model import load_model

    return judge_trials(package.name, package.version, load_model(store, package.name, package.version, target).trials)


def judge_trials(name: str, version: str, tried: Sequence[RuntimeTrial]) -> CheckFinding:
    """Return the finding for the runtimes that were tried for a model."""
    facts = [item.as_dict() for item in tried]
    detail = f"version {version}: {'; '.join(map(_trial_text, tried))}"
    if all(item.role in {"own", "refused"} for item in tried):
        fix = "do nothing, its own library scores it; second_runtime='none' skips the trial"
        return doubt(f"scoring {name}", detail, fix, facts)
    return good(f"scoring {name}", detail, facts)


def _trial_text(item: RuntimeTrial) -> str:
    if item.role == "refused":
        return f"{item.runtime} is rejected: {item.reason}"
    time = "" if item.seconds is None else f": {item.rows} rows in {item.seconds * 1e3:.3g} ms"
    return f"{item.runtime} ({item.role}){time}"
