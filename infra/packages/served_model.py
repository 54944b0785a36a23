"""A model package opened to predict: assembler, certified runtime, codecs. Used by server and replay."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from skewless.contract.bounds import Bounds
from skewless.contract.bounds_check import BoundsCheck
from skewless.contract.errors import PackageError
from skewless.contract.plan import FeaturePlan
from skewless.contract.request import RowParser
from skewless.contract.status import Int64Array
from skewless.contract.vector import Assembler
from skewless.infra.online.service_vectors import VectorReader
from skewless.infra.online.window_states import WindowStates
from skewless.infra.packages.package import Package, open_package, pinned_plan
from skewless.infra.packages.store import PackageStore
from skewless.infra.predictions.record import LoadColumns
from skewless.infra.runtimes.candidates import ScoringTarget, candidates, open_runtime
from skewless.infra.runtimes.certification import Certificate, certify
from skewless.infra.runtimes.choice import RuntimeChoice, RuntimeTrial, choose
from skewless.infra.runtimes.port import Runtime


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedModel:
    """A loaded, certified version of a model.

    Args:
        plan: the part of the plan that the model pins.
        certificate: of what scores it.
        tried: the runtimes that were tried at load, where there was more than the library's own.
        windows: what reads its windowed views.
        reader: what reads its vectors.
        parser: what parses the rows of its requests.
    """

    package: Package
    plan: FeaturePlan
    assembler: Assembler
    runtime: Runtime
    certificate: Certificate
    windows: WindowStates
    reader: VectorReader
    parser: RowParser
    tried: tuple[RuntimeTrial, ...] = ()

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.package.name

    @property
    def version(self) -> str:
        """Return the package's version."""
        return self.package.version

    @cached_property
    def freshness_us(self) -> Int64Array:
        """Return the freshness limit of each view (``plan.all_views``), shape ``(n_views,)``; 0: no limit."""
        return np.array([view.freshness_us for view in self.plan.all_views], dtype=np.int64)

    @cached_property
    def bounds(self) -> BoundsCheck | None:
        """Return what holds its vectors and requests against its bounds; None: it has none, or they are off."""
        bounds = Bounds.from_dict(self.package.bounds)
        if self.package.spec.bounds == "off" or not (bounds.features or bounds.fields):
            return None
        return BoundsCheck(self.plan, self.package.plan["vocabularies"], bounds)

    @cached_property
    def origin(self) -> LoadColumns:
        """Return what the prediction log says of all its predictions."""
        return LoadColumns(
            model=self.name,
            version=self.version,
            runtime_id=self.runtime.runtime_id,
            tolerance=0.0 if self.certificate.bit_equal else self.package.spec.tolerance,
            plan_hash=self.plan.hash,
            transform_hashes=tuple(item.hash for item in self.plan.transforms),
            missing=self.package.spec.missing,
            views=tuple((view.name, view.hash) for view in self.plan.all_views),
        )


def load_model(store: PackageStore, name: str, version: str, place: ScoringTarget | None = None) -> ServedModel:
    """Return a package opened, verified, its transforms checked and its runtime certified.

    Args:
        place: where it may be scored besides; None: by its own library alone.

    Raises:
        PackageError: nobody trusted signed it, a file is altered, or the runtime differs from the library that trained.
        DefinitionError: a transform gives other bits for one row than for many.
    """
    package = open_package(store, name, version)
    plan = pinned_plan(package)
    assembler = Assembler(plan, package.plan["vocabularies"])
    for runner in assembler.runners:
        runner.check()
    choice = _scored_by(package, place)
    windows = WindowStates(plan)
    model = ServedModel(
        package=package,
        plan=plan,
        assembler=assembler,
        runtime=choice.runtime,
        certificate=choice.certificate,
        windows=windows,
        reader=VectorReader(assembler, windows),
        parser=RowParser(plan),
        tried=choice.tried,
    )
    # A replaced version is freed when the last request that uses it lets go.
    weakref.finalize(model, choice.runtime.close)
    return model


def _scored_by(package: Package, place: ScoringTarget | None) -> RuntimeChoice:
    spec, reference = package.spec, package.reference
    own = open_runtime(spec.algorithm, package.model_file)
    try:
        certificate = certify(own, reference, tolerance=spec.tolerance)
        others = [] if place is None else candidates(spec.algorithm, spec.device, package.model_file, place)
        large = place is not None and place.alone
        return choose(own, certificate, others, reference, tolerance=spec.tolerance, large=large)
    except PackageError:
        own.close()
        raise
