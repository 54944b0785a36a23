"""A loaded model package, ready to predict: assembler, certified runtime, parsers. Used by the server and replay."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from skewless.contract.actions import decide, most_likely
from skewless.contract.bounds import Bounds
from skewless.contract.bounds_check import BoundsCheck
from skewless.contract.errors import PackageError
from skewless.contract.plan import FeaturePlan
from skewless.contract.policy import ListValues
from skewless.contract.policy_runner import PolicyRunner
from skewless.contract.request import ParsedRows, RowParser
from skewless.contract.status import Int64Array
from skewless.contract.vector import Assembler, Matrix
from skewless.infra.models.packages.kept_certificates import certify_once
from skewless.infra.models.packages.package import ALL_DOCUMENTS, Package, open_package, pinned_plan
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.rollout.entity_lists import EntityLists, ListVersion
from skewless.infra.models.runtimes.candidates import ScoringTarget, find_candidates, open_runtime
from skewless.infra.models.runtimes.certification import Certificate
from skewless.infra.models.runtimes.choice import RuntimeChoice, RuntimeTrial, choose
from skewless.infra.models.runtimes.port import Runtime
from skewless.infra.reads.online.service_vectors import VectorReader
from skewless.infra.reads.online.window_states import WindowStates
from skewless.infra.records.predictions.record import LoadColumns, largest_output

CHECK_ROWS = 64  # reference rows that stay in memory


@dataclass(frozen=True, kw_only=True)
class RowActions:
    """The actions about n rows.

    Args:
        taken: the action of each row, exploration included; None: nothing. Empty: the model has no actions.
        propensities: probability of each action before the choice of exploration; empty: nothing can explore.
        reasons: codes of the policy; empty: the model has no policy.
        lists: number of the version of each list that the policy read.
    """

    taken: Sequence[str | None] = ()
    propensities: Sequence[float] = ()
    reasons: Sequence[tuple[str, ...]] = ()
    lists: Mapping[str, int] = field(default_factory=dict)


_NO_ACTIONS = RowActions()


class RowTime:
    """How long a model needs for a row, measured while it serves.

    Attributes:
        seconds: an estimate; negative: nothing was measured yet.
    """

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = -1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedModel:
    """A loaded, certified version of a model.

    Args:
        package: with the first ``CHECK_ROWS`` of its reference rows.
        plan: the part of the plan that the model pins.
        certificate: the certificate of its runtime.
        trials: the runtimes that were tried at load, if there were others than the library's own.
        row_time: how long it needs for a row.
        windows: reads its windowed views.
        reader: reads its vectors.
        parser: parses the rows of its requests.
        policy: decides about its scores; None: it has no policy.
        lists: the latest versions of the lists that the policy reads.
        stored_lists: all versions of all lists.
    """

    package: Package
    plan: FeaturePlan
    assembler: Assembler
    runtime: Runtime
    certificate: Certificate
    windows: WindowStates
    reader: VectorReader
    parser: RowParser
    policy: PolicyRunner | None = None
    lists: ListValues = field(default_factory=dict)
    stored_lists: EntityLists | None = None
    trials: tuple[RuntimeTrial, ...] = ()
    row_time: RowTime = field(default_factory=RowTime)

    def __enter__(self) -> Self:
        """Return the model; leaving the block closes its runtime."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its runtime."""
        self.runtime.close()

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.package.name

    def act(
        self,
        scores: npt.NDArray[np.float64],
        matrix: Matrix,
        rows: ParsedRows | None,
        explored: Sequence[bool] | None,
        lists: ListValues,
    ) -> RowActions:
        """Return the actions about n rows: by the policy, the decisions or the likeliest class, then by exploration.

        Args:
            scores: ``(n,)`` or ``(n, k)`` float64.
            matrix: the vectors, ``(n, n_features)`` float64.
            rows: keys and request fields, for a policy; None: the caller sent vectors.
            explored: which rows explore; None: none can.
            lists: versions of the lists of the policy.

        Raises:
            PackageError: the policy fails.
        """
        spec = self.package.spec
        if self.policy is None and not spec.decisions:
            return RowActions(taken=most_likely(spec.classes, scores)) if spec.classes else _NO_ACTIONS
        numbers: dict[str, int] = {}
        reasons: Sequence[tuple[str, ...]] = ()
        actions: Sequence[str | None]
        if self.policy is not None:
            actions, reasons = self.policy.act(largest_output(scores), matrix, rows, lists)
            numbers = {name: number for name, (number, _) in lists.items()}
        else:
            actions = decide(spec.decisions, scores)
        propensities: Sequence[float] = ()
        if spec.explore is not None and explored is not None:
            actions, propensities = spec.explore.act(actions, explored)
        return RowActions(taken=actions, propensities=propensities, reasons=reasons, lists=numbers)

    def read_lists(self) -> None:
        """Read the latest versions of the lists of its policy; raises StoreError, and the last ones stay."""
        if self.policy is not None and self.policy.policy.lists and self.stored_lists is not None:
            object.__setattr__(self, "lists", self.stored_lists.refresh(self.policy.policy.lists, self.lists))

    def past_lists(self, numbers: Mapping[str, int]) -> Mapping[str, ListVersion]:
        """Return some versions of lists.

        Raises:
            StoreError: one is not there, or the database is unavailable.
        """
        return {} if self.stored_lists is None else self.stored_lists.read_all(numbers)

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
        """Return the check of its vectors and requests against its bounds; None: it has no bounds, or they are off."""
        bounds = Bounds.from_dict(self.package.bounds)
        if self.package.spec.bounds == "off" or not (bounds.features or bounds.fields):
            return None
        return BoundsCheck(self.plan, self.package.plan["vocabularies"], bounds)

    @cached_property
    def origin(self) -> LoadColumns:
        """Return the columns of the prediction log that are equal for all its predictions."""
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


def load_model(
    store: PackageStore,
    name: str,
    version: str,
    target: ScoringTarget | None = None,
    documents: Collection[str] = ALL_DOCUMENTS,
) -> ServedModel:
    """Open and verify a package, check its transforms and certify its runtime.

    Args:
        target: the machine's scoring options; None: only the library's own runtime is used.
        documents: of its package; see ``open_package``.

    Raises:
        PackageError: no trusted key signed it, a file is altered, or the runtime differs from the training library.
        DefinitionError: a transform gives other bits for one row than for many.
    """
    package = open_package(store, name, version, documents)
    plan = pinned_plan(package)
    assembler = Assembler(plan, package.plan["vocabularies"])
    # Checked again at each load: another numpy, or another machine, may round differently (SEMANTICS 5.1).
    for runner in assembler.runners:
        runner.check()
    policy = None
    if package.spec.policy is not None:
        policy = PolicyRunner(f"model {name!r}", package.spec.policy, plan)
        policy.check()
    choice = _choose_runtime(store, package, target)
    windows = WindowStates(plan)
    model = ServedModel(
        package=replace(package, reference=package.reference.first(CHECK_ROWS)),
        plan=plan,
        assembler=assembler,
        runtime=choice.runtime,
        certificate=choice.certificate,
        windows=windows,
        reader=VectorReader(assembler, windows),
        parser=RowParser(plan),
        policy=policy,
        stored_lists=EntityLists(store.state.database),
        trials=choice.trials,
    )
    model.read_lists()
    # A replaced version is freed after the last request that uses it.
    weakref.finalize(model, choice.runtime.close)
    return model


class OpenedModels:
    """Versions that were loaded for questions about their predictions; the least recently used is closed first.

    A version is loaded again if a file of its package has changed. Use an object from one thread.

    Args:
        store: the packages of a project.
        most: number of versions.
    """

    def __init__(self, store: PackageStore, most: int = 4) -> None:
        self._store, self._most = store, most
        self._models: dict[tuple[str, str], tuple[ServedModel, object]] = {}

    def get(self, name: str, version: str) -> ServedModel:
        """Return a version, which stays loaded for a while.

        Raises:
            PackageError, DefinitionError: as ``load_model``.
        """
        folder = self._store.packages.version_folder(name, version)
        stamp = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*"))
        model, known = self._models.pop((name, version), (None, None))
        if model is None or stamp != known:
            if model is not None:
                model.runtime.close()
            model = load_model(self._store, name, version)
        self._models[name, version] = model, stamp
        while len(self._models) > self._most:
            self._models.pop(next(iter(self._models)))[0].runtime.close()
        return model

    def close(self) -> None:
        """Close all versions."""
        for model, _ in self._models.values():
            model.runtime.close()
        self._models.clear()


def _choose_runtime(store: PackageStore, package: Package, target: ScoringTarget | None) -> RuntimeChoice:
    spec, reference = package.spec, package.reference
    own = open_runtime(spec.algorithm, package.model_file)
    try:
        certificate = certify_once(store, package, own)
        target = target or ScoringTarget(second="none")
        others = find_candidates(spec.algorithm, spec.device, package.model_file, target.second)
        return choose(own, certificate, others, reference, tolerance=spec.tolerance, batch_rows=target.batch_rows)
    except PackageError:
        own.close()
        raise
