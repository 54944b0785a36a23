"""A model package opened to predict: assembler, certified runtime, codecs. Used by server and replay."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.online.window_states import WindowStates
from infra.packages.package import Package, open_package
from infra.runtimes.certification import Certificate, certify
from infra.runtimes.load import open_runtime
from infra.runtimes.port import Runtime
from skewless.errors import PackageError
from skewless.keys import KeyCodec
from skewless.plan import FeaturePlan
from skewless.rows import RowCodec
from skewless.vector import Assembler


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A loaded, certified version of a model.

    Args:
        plan: the part of the plan that the model pins.
        keys: per view, names of its rows in Redis.
        rows: per view, the codec of its rows.
        windows: what reads its windowed views.
    """

    package: Package
    plan: FeaturePlan
    assembler: Assembler
    runtime: Runtime
    certificate: Certificate
    keys: Mapping[str, KeyCodec]
    rows: Mapping[str, RowCodec]
    windows: WindowStates

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.package.name

    @property
    def version(self) -> str:
        """Return the package's version."""
        return self.package.version


def pin(plan: FeaturePlan, vocabularies: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a package stores as its plan: the pinned part and the vocabularies."""
    return {"features": plan.as_dict(), "hash": plan.hash, "vocabularies": dict(vocabularies)}


def pinned_plan(package: Package) -> FeaturePlan:
    """Return the plan that a package pins.

    Raises:
        PackageError: the plan is not the one that its hash names.
    """
    plan = FeaturePlan.from_dict(package.plan["features"])
    if plan.hash != package.plan["hash"]:
        raise PackageError(
            f"package {package.name} {package.version}",
            "holds a plan with another hash than it says",
            value=plan.hash,
            fix="train again with this version of skewless",
        )
    return plan


def load_model(packages: Path, name: str, version: str) -> ServedModel:
    """Return a package opened, verified, its transforms checked and its runtime certified.

    Raises:
        PackageError: a file is altered, or the runtime differs from the library that trained it.
        DefinitionError: a transform gives other bits for one row than for many.
    """
    package = open_package(packages, name, version)
    plan = pinned_plan(package)
    assembler = Assembler(plan, package.plan["vocabularies"])
    for runner in assembler.runners:
        runner.check()
    runtime = open_runtime(package.spec.algorithm, package.model_file)
    try:
        certificate = certify(runtime, package.reference, tolerance=package.spec.tolerance)
    except PackageError:
        runtime.close()
        raise
    model = ServedModel(
        package=package,
        plan=plan,
        assembler=assembler,
        runtime=runtime,
        certificate=certificate,
        keys={view.name: KeyCodec(plan.project, view) for view in plan.views},
        rows={view.name: RowCodec(view) for view in plan.views},
        windows=WindowStates(plan),
    )
    # A replaced version is freed when the last request that uses it lets go.
    weakref.finalize(model, runtime.close)
    return model
