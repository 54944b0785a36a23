"""Compute the effects of a new plan: views to build and retire, models to train, versions served (SEMANTICS 8.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from skewless.contract.changes import compare_plans, find_differences
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.spec import ModelSpec
from skewless.contract.traffic import Role, TrafficPolicy
from skewless.contract.windows.view import WindowView
from skewless.infra.definitions.plans.needed_views import NeededViews, Retained, merge_needed_views

# Fields of a spec that take effect without a training: at the next decision, check or scheduler tick.
_LIVE_FIELDS = frozenset({"gate", "retrain", "slices", "rollout", "watch", "triggers"})


@dataclass(frozen=True, kw_only=True)
class Build:
    """A new version of a view.

    Args:
        kind: ``states``: states of a windowed view, built from the log; ``rows``: rows of a latest-value view, accepted
            by the next materialization; ``catch up``: its states are still online.
        rows: number of events to read from the log, or approximate number of rows to accept; None: unknown.
        seconds: estimated duration, by the last build on this machine; None: unknown.
    """

    view: str
    hash: str
    kind: Literal["states", "rows", "catch up"]
    rows: int | None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class RetiringView:
    """A version of a view without readers: its online states are deleted after some hours."""

    view: str
    hash: str
    hours: float


@dataclass(frozen=True, kw_only=True)
class Training:
    """A model that needs a training to get the new definitions.

    Args:
        version: its champion; None: it has no champion.
        reasons: the differences from the champion.
    """

    model: str
    version: str | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ServedVersion:
    """A version that is still served.

    Args:
        views: the views that it reads; ``card_now@3f2a91c0`` is no longer in the plan.
    """

    model: str
    version: str
    role: Role
    views: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BrokenVersion:
    """A served version whose views would no longer be kept up to date."""

    model: str
    version: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A model's champion, or its version in rollout.

    Args:
        spec: the spec of its training; None: its package cannot be read.
    """

    version: str
    spec: ModelSpec | None


@dataclass(frozen=True, kw_only=True)
class PlanEffects:
    """The effects of a new plan.

    Args:
        old: the applied plan, None before the first apply.
        new: the new plan.
        retained: versions that may serve requests, with their pinned plans.
        champions: champion per model.
        challengers: version in a rollout per model.
    """

    old: FeaturePlan | None
    new: FeaturePlan
    retained: Sequence[Retained]
    champions: Mapping[str, Champion]
    challengers: Mapping[str, Champion] = field(default_factory=dict)

    @property
    def needed(self) -> NeededViews:
        """Return the needed views once the new plan is applied."""
        return merge_needed_views(self.new, self.retained)

    def find_new_views(self) -> list[View | WindowView]:
        """Return the versions of views that the new plan needs, and the old plan did not."""
        before = merge_needed_views(self.old, self.retained).readers if self.old else {}
        return [view for view in self.needed.plan.all_views if view.hash not in before]

    def find_retiring_views(self, hours: float) -> list[RetiringView]:
        """Return the versions of views that only the old plan needs; they are retired after ``hours``."""
        after, before = self.needed.readers, merge_needed_views(self.old, self.retained) if self.old else None
        views = before.plan.all_views if before else ()
        return [RetiringView(view=item.name, hash=item.hash, hours=hours) for item in views if item.hash not in after]

    def find_trainings(self, models: Iterable[ModelSpec]) -> Iterator[Training]:
        """Yield the models whose champions differ from their definitions, unless a version in rollout has them."""
        for spec in models:
            champion = self.champions.get(spec.name)
            if champion is None:
                yield Training(model=spec.name, version=None, reasons=("it has no champion",))
                continue
            reasons = self._find_differences(spec, champion)
            if reasons and self.find_ready_challenger(spec) is None:
                yield Training(model=spec.name, version=champion.version, reasons=reasons)

    def describe_rollouts(self, models: Iterable[ModelSpec]) -> Iterator[str]:
        """Yield a sentence for each model without need of a training: its version in rollout has the definitions."""
        for spec in models:
            champion, version = self.champions.get(spec.name), self.find_ready_challenger(spec)
            if champion is not None and version is not None and self._find_differences(spec, champion):
                shows = f"`skewless rollout {spec.name}` shows it"
                yield f"model {spec.name!r}: version {version} has these definitions and is in its rollout; {shows}"

    def find_ready_challenger(self, spec: ModelSpec) -> str | None:
        """Return the version in rollout that was trained on a model's new definitions; None: there is none."""
        challenger = self.challengers.get(spec.name)
        return None if challenger is None or self._find_differences(spec, challenger) else challenger.version

    def find_served_versions(self, policy: Callable[[str], TrafficPolicy | None]) -> Iterator[ServedVersion]:
        """Yield the versions with traffic, and their views.

        Args:
            policy: returns a model's traffic policy, if it has one.
        """
        needed = self.needed
        for model, version, plan in self.retained:
            role = self._find_role(model, version, policy(model))
            if role is not None and plan.project == self.new.project:
                views = tuple(needed.label(view) for view in plan.all_views)
                yield ServedVersion(model=model, version=version, role=role, views=views)

    def find_broken_versions(self) -> Iterator[BrokenVersion]:
        """Yield the versions whose views would no longer be kept up to date."""
        for model, version, plan in self.retained:
            if plan.project != self.new.project:
                reason = f"project {plan.project!r} becomes {self.new.project!r}: its rows have other keys"
                yield BrokenVersion(model=model, version=version, reason=reason)

    def _find_differences(self, spec: ModelSpec, trained: Champion) -> tuple[str, ...]:
        old, plans_by_version = trained.spec, {(model, version): plan for model, version, plan in self.retained}
        pinned = plans_by_version.get((spec.name, trained.version))
        if old is None or pinned is None:
            return ("the package of its champion cannot be read",)
        plans = [f"{item.kind} {item.name}" for item in compare_plans(pinned, self.new.select_service(spec.service))]
        # With a search, the parameters of the champion are the result of the search, not a difference.
        live = _LIVE_FIELDS | {"params"} if spec.search else _LIVE_FIELDS
        fields = [item.path[0] for item in find_differences(old, spec) if item.path[0] not in live]
        return tuple(dict.fromkeys([*plans, *fields]))

    def _find_role(self, model: str, version: str, policy: TrafficPolicy | None) -> Role | None:
        champion = self.champions.get(model)
        if champion is not None and champion.version == version:
            return "champion"
        if policy is None:
            return None
        return "challenger" if policy.challenger == version else "shadow" if version in policy.shadows else None
