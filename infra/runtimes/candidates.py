"""Which runtimes score a model on this machine: the one of its own library, and what may be tried beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from skewless.contract.errors import PackageError
from skewless.infra.host.plugins import find_plugin
from skewless.infra.runtimes import nvforest, xgboost_cuda
from skewless.infra.runtimes.child import ChildRuntime
from skewless.infra.runtimes.cuda import Driver, driver
from skewless.infra.runtimes.lightgbm_capi import LightGBMRuntime
from skewless.infra.runtimes.port import Runtime
from skewless.infra.runtimes.tree_arrays import TreeArraysRuntime
from skewless.infra.runtimes.xgboost_capi import XGBoostRuntime

Second = Literal["gpu", "cpu", "none"]
Device = Literal["auto", "cpu", "cuda"]
_KNOWN = ("lightgbm", "xgboost")


@dataclass(frozen=True, kw_only=True)
class ScoringTarget:
    """Where and for what models are scored.

    Args:
        second: where a second runtime may work: on a GPU if there is one, on the CPU (nvForest's own CPU class: to
            try all this out without a GPU), or nowhere.
        alone: nothing else waits for this process, as in batch prediction: then nothing needs a child process.
        driver: what the driver says.
        child_environment: variables that child processes get besides.
    """

    second: Second = "gpu"
    alone: bool = False
    driver: Callable[[], Driver] = driver
    child_environment: Mapping[str, str] = field(default_factory=dict)


def open_runtime(algorithm: str, model_file: Path) -> Runtime:
    """Return the loaded model, not yet certified; the caller closes it.

    An algorithm that is not ours is opened by what a package registers for it in the entry point group
    ``skewless.runtimes``: a function from the model file to a Runtime.

    Raises:
        PackageError: no runtime serves this algorithm, or the file is missing or not a model.
    """
    if not model_file.is_file():
        raise PackageError(f"model file {model_file.name!r}", "is missing", fix="train and package the model again")
    return _opener(algorithm)(model_file)


def _opener(algorithm: str) -> Callable[[Path], Runtime]:
    ours: dict[str, Callable[[Path], Runtime]] = {
        "lightgbm": LightGBMRuntime.from_file,
        "xgboost": XGBoostRuntime.from_file,
        "sklearn": TreeArraysRuntime.from_file,
    }
    found = ours.get(algorithm) or find_plugin("skewless.runtimes", algorithm)
    if found is None:
        raise PackageError(
            "runtime",
            "serves no such algorithm",
            value=algorithm,
            fix=f"use one of {', '.join(ours)}, or install what registers it in skewless.runtimes",
        )
    opener: Callable[[Path], Runtime] = found
    return opener


@dataclass(frozen=True, kw_only=True)
class RuntimeCandidate:
    """A runtime that may be tried.

    Args:
        name: what it is called before it is open.
        open: opens it; raises PackageError.
        problem: why it cannot be tried, if it cannot.
        reopens: once it failed it has to be opened anew.
    """

    name: str
    open: Callable[[], Runtime] | None = None
    problem: str | None = None
    reopens: bool = False


def candidates(algorithm: str, device: Device, path: Path, place: ScoringTarget) -> list[RuntimeCandidate]:
    """Return what may be tried, and where a GPU is asked for what cannot be.

    Args:
        algorithm: the library that trained the model.
        device: what the model asks for: ``cpu`` for nothing else, ``cuda`` for a GPU, which is missed then.
        path: of the model file.
    """
    if place.second == "none" or device == "cpu":
        return []
    if place.second == "cpu":
        return [_nvforest(algorithm, path, "cpu", place)] if algorithm in _KNOWN and nvforest.is_installed() else []
    problem = place.driver().problem
    found = [] if problem else list(_on_gpu(algorithm, path, place))
    if not found and device == "cuda":
        reason = problem or f"nothing is installed that scores {algorithm} on a GPU: pip install 'skewless[gpu]'"
        return [RuntimeCandidate(name="gpu", problem=reason)]
    return found


def _on_gpu(algorithm: str, path: Path, place: ScoringTarget) -> Iterator[RuntimeCandidate]:
    if algorithm in _KNOWN and nvforest.is_installed():
        yield _nvforest(algorithm, path, "gpu", place)
    if algorithm == "xgboost" and xgboost_cuda.is_built_in():
        yield _xgboost_cuda(path, place)


def _nvforest(algorithm: str, path: Path, at: nvforest.ScoringTarget, place: ScoringTarget) -> RuntimeCandidate:
    def opened() -> Runtime:
        if place.alone:
            return nvforest.NvForestRuntime(algorithm, path, at)
        return ChildRuntime(algorithm, path, at, environment=place.child_environment)

    return RuntimeCandidate(name=f"nvforest-{at}", open=opened, reopens=not place.alone)


def _xgboost_cuda(path: Path, place: ScoringTarget) -> RuntimeCandidate:
    # It would let go of the GIL; but a device that hangs would hold up all that waits for this process.
    def opened() -> Runtime:
        if place.alone:
            return xgboost_cuda.XGBoostCudaRuntime.from_file(path)
        return ChildRuntime("xgboost", path, "gpu", kind="xgboost-cuda", environment=place.child_environment)

    return RuntimeCandidate(name="xgboost-cuda", open=opened, reopens=not place.alone)
