"""Finds the runtimes for a model on this machine: that of its own library, and further candidates to try."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from skewless.contract.errors import PackageError
from skewless.infra.host.plugins import find_plugin
from skewless.infra.runtimes import lignum, nvforest, xgboost_cuda
from skewless.infra.runtimes.catboost_trees import CatBoostRuntime
from skewless.infra.runtimes.child import ChildRuntime, Kind, open_device_runtime
from skewless.infra.runtimes.cuda import Driver, driver
from skewless.infra.runtimes.lightgbm_capi import LightGBMRuntime
from skewless.infra.runtimes.port import Runtime
from skewless.infra.runtimes.tree_arrays import TreeArraysRuntime
from skewless.infra.runtimes.xgboost_capi import XGBoostRuntime

Second = Literal["gpu", "cpu", "lignum", "lignum-compiled", "none"]
Device = Literal["auto", "cpu", "cuda"]
MISSING_GPU = "gpu"  # name of a candidate for a model that requires a GPU where there is none
_SUPPORTED = ("lightgbm", "xgboost")


@dataclass(frozen=True, kw_only=True)
class ScoringTarget:
    """The machine and purpose for which models are loaded.

    Args:
        second: the second runtime: on a GPU if there is one, on the CPU (nvForest's CPU class, for tests without a
            GPU), lignum, lignum with trees that are compiled when the model is loaded, or none.
        alone: no requests wait for this process, as in batch prediction; then no runtime needs a child process.
        driver: queries the GPU driver.
        child_environment: additional environment variables of child processes.
    """

    second: Second = "gpu"
    alone: bool = False
    driver: Callable[[], Driver] = driver
    child_environment: Mapping[str, str] = field(default_factory=dict)


def open_runtime(algorithm: str, model_file: Path) -> Runtime:
    """Return the loaded model, not yet certified; the caller closes it.

    A package can register further algorithms in the entry point group ``skewless.runtimes``, each as a function from
    the model file to a Runtime.

    Raises:
        PackageError: no runtime supports this algorithm, or the file is missing or not a model.
    """
    if not model_file.is_file():
        raise PackageError(f"model file {model_file.name!r}", "is missing", fix="train and package the model again")
    own: dict[str, Callable[[bytes, str], Runtime]] = {
        "lightgbm": LightGBMRuntime,
        "xgboost": XGBoostRuntime,
        "sklearn": TreeArraysRuntime,
        "catboost": CatBoostRuntime,
    }
    if algorithm in own:
        return own[algorithm](model_file.read_bytes(), f"model file {model_file.name!r}")
    opener = find_plugin("skewless.runtimes", algorithm)
    if opener is None:
        fix = f"use one of {', '.join(own)}, or install a package that registers it in skewless.runtimes"
        raise PackageError("runtime", "does not support the algorithm", value=algorithm, fix=fix)
    runtime: Runtime = opener(model_file)
    return runtime


@dataclass(frozen=True, kw_only=True)
class RuntimeCandidate:
    """A runtime that may be tried.

    Args:
        name: its name before it is opened.
        open: opens it; raises PackageError.
        problem: why it cannot be tried; None: it can.
        reopens: whether it must be opened again after a failure.
        is_inline: a call cannot hang, so that it may run on an event loop, as those of the library.
    """

    name: str
    open: Callable[[], Runtime] | None = None
    problem: str | None = None
    reopens: bool = False
    is_inline: bool = False


def find_candidates(algorithm: str, device: Device, path: Path, target: ScoringTarget) -> list[RuntimeCandidate]:
    """Return the runtimes to try; if a model requires a GPU and there is none, a candidate with the problem.

    Args:
        algorithm: the library that trained the model.
        device: device of the model's spec: ``cpu`` allows no nvForest, ``cuda`` reports a missing GPU.
        path: path of the model file.
    """
    if target.second in {"lignum", "lignum-compiled"}:
        return [_lignum_candidate(target.second, algorithm, path)] if algorithm in lignum.ALGORITHMS else []
    if target.second == "none" or device == "cpu":
        return []
    if target.second == "cpu":
        is_supported = algorithm in _SUPPORTED and nvforest.is_installed()
        return [_candidate("nvforest", algorithm, path, "cpu", target)] if is_supported else []
    problem = target.driver().problem
    candidates: list[RuntimeCandidate] = []
    if problem is None and algorithm in _SUPPORTED and nvforest.is_installed():
        candidates.append(_candidate("nvforest", algorithm, path, "gpu", target))
    if problem is None and algorithm == "xgboost" and xgboost_cuda.is_built_in():
        candidates.append(_candidate("xgboost-cuda", algorithm, path, "gpu", target))
    if not candidates and device == "cuda":
        reason = problem or f"no installed package scores {algorithm} on a GPU: pip install 'skewless[gpu]'"
        return [RuntimeCandidate(name=MISSING_GPU, problem=reason)]
    return candidates


def _lignum_candidate(name: str, algorithm: str, path: Path) -> RuntimeCandidate:
    if not lignum.is_installed():
        return RuntimeCandidate(name=name, problem="is not installed: pip install 'skewless[lignum]'")

    def open_it() -> Runtime:
        return lignum.LignumRuntime(algorithm, path, compiled=name == "lignum-compiled")

    return RuntimeCandidate(name=name, open=open_it, is_inline=True)


def _candidate(
    kind: Kind, algorithm: str, path: Path, device: nvforest.ForestDevice, target: ScoringTarget
) -> RuntimeCandidate:
    # nvForest holds the GIL. XGBoost releases it, but a device that hangs would block all other requests.
    def open_it() -> Runtime:
        if target.alone:
            return open_device_runtime(kind, algorithm, str(path), device)
        return ChildRuntime(algorithm, path, device, kind=kind, environment=target.child_environment)

    name = kind if kind == "xgboost-cuda" else f"{kind}-{device}"
    return RuntimeCandidate(name=name, open=open_it, reopens=not target.alone)
