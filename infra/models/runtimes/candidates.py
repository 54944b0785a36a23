"""Finds the runtimes for a model on this machine: that of its own library, and further candidates to try."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from skewless.contract.errors import DefinitionError, PackageError
from skewless.infra.models.runtimes.lightgbm_capi import LightGBMRuntime
from skewless.infra.models.runtimes.port import Runtime, RuntimeProvider, own_provider
from skewless.infra.models.runtimes.xgboost_capi import XGBoostRuntime
from skewless.infra.platform.host.plugins import find_plugins

Device = Literal["auto", "cpu", "cuda"]
MISSING_GPU = "gpu"  # name of a candidate for a model that requires a GPU where there is none
_NO_SECOND = "none"
_GPU = "gpu"
_EXTRAS = {"cpu": "gpu", "lignum-compiled": "lignum"}  # that provide a second runtime of another name


@dataclass(frozen=True, kw_only=True)
class ScoringTarget:
    """The purpose for which models are loaded.

    Args:
        second: the setting ``second_runtime``.
        batch_rows: rows of a typical batch, with which runtimes are measured.
    """

    second: str = _GPU
    batch_rows: int = 64


@dataclass(frozen=True, kw_only=True)
class RuntimeCandidate:
    """A runtime that may be tried.

    Args:
        name: its name before it is opened.
        open: opens it; raises PackageError.
        problem: why it cannot be tried; None: it can.
    """

    name: str
    open: Callable[[], Runtime]
    problem: str | None = None


BUILT_IN: Mapping[str, Sequence[RuntimeProvider]] = {
    "lightgbm": (own_provider("lightgbm", LightGBMRuntime),),
    "xgboost": (own_provider("xgboost", XGBoostRuntime),),
}
"""By algorithm."""


def find_providers(name: str) -> Sequence[RuntimeProvider]:
    """Return the runtimes with a name: ours, or those of other packages.

    Args:
        name: an algorithm, or a value of the setting ``second_runtime``.

    Raises:
        DefinitionError: that of another package cannot be imported.
    """
    found = find_plugins("skewless.runtimes", name)
    registered = [each for one in found for each in (one if isinstance(one, Sequence) else [one])]
    return BUILT_IN.get(name) or registered


def open_runtime(algorithm: str, model_file: Path) -> Runtime:
    """Return the model loaded by its algorithm's own runtime, not yet certified; the caller closes it.

    Raises:
        PackageError: no runtime supports this algorithm, or the file is missing or not a model.
        DefinitionError: the runtime of another package cannot be imported.
    """
    if not model_file.is_file():
        raise PackageError(f"model file {model_file.name!r}", "is missing", fix="train and package the model again")
    for provider in find_providers(algorithm):
        if algorithm in provider.algorithms:
            return provider.open(algorithm, model_file)
    fix = f"pip install 'skewless[{algorithm}]', or the package that registers it in skewless.runtimes"
    raise PackageError("runtime", "does not support the algorithm", value=algorithm, fix=fix)


def find_candidates(algorithm: str, device: Device, path: Path, second: str) -> list[RuntimeCandidate]:
    """Return the runtimes to try; if a model requires a GPU and there is none, a candidate with the problem.

    Args:
        algorithm: the library that trained the model.
        device: device of the model's spec: ``cpu`` allows no runtime for a device, ``cuda`` reports a missing GPU.
        path: path of the model file.
        second: the setting ``second_runtime``.
    """
    if second == _NO_SECOND:
        return []
    try:
        providers = find_providers(second)
    except DefinitionError as error:
        return [_missing(second, error.sentence())]
    if not providers and second != _GPU:
        return [_missing(second, _not_installed(second))]
    candidates = [
        RuntimeCandidate(name=each.name, open=partial(each.open, algorithm, path), problem=each.find_problem())
        for each in providers
        if algorithm in each.algorithms and not (each.for_device and device == "cpu")
    ]
    if second != _GPU:
        return candidates
    # The default: it is silent where there is no GPU, unless the model requires one.
    usable = [each for each in candidates if each.problem is None]
    if usable or device != "cuda":
        return usable
    problems = [each.problem for each in candidates if each.problem is not None]
    none = f"no installed package scores {algorithm} on a GPU" if providers else _not_installed(_GPU)
    return [_missing(MISSING_GPU, problems[0] if problems else none)]


def _not_installed(second: str) -> str:
    extra = _EXTRAS.get(second, second)
    return f"is not installed: pip install 'skewless[{extra}]', or the package that registers it"


def _missing(name: str, problem: str) -> RuntimeCandidate:
    def refuse() -> Runtime:
        raise PackageError(f"runtime {name!r}", problem, fix="set second_runtime to none")

    return RuntimeCandidate(name=name, open=refuse, problem=problem)
