"""What comes of a new plan: what is built and retired, who must be trained, who goes on and on what (SEMANTICS 8.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from skewless.contract.changes import compare_plans
from skewless.contract.differences import find_differences
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.spec import ModelSpec
from skewless.contract.traffic import Role, TrafficPolicy
from skewless.contract.windows.view import WindowView
from skewless.infra.plans.needed_views import NeededViews, Retained, unite

# Fields of a model that count without a training: at the next decision, look or minute.
_LIVE_FIELDS = frozenset({"gate", "retrain", "slices", "rollout", "watch", "triggers"})


@dataclass(frozen=True, kw_only=True)
class Build:
    """A version of a view that comes online.

    Args:
        kind: ``states``: of a windowed view, built from the log; ``rows``: of a latest-value view, accepted by the next
            run of materialisation; ``catch up``: its states are still online.
        rows: events of the log that are read, or about how many rows of the source are accepted; None: unknown.
        seconds: about how long, by the last build on this machine; None: unknown.
    """

    view: str
    hash: str
    kind: Literal["states", "rows", "catch up"]
    rows: int | None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class RetiringView:
    """A version of a view that nothing reads any more: it goes offline after some hours."""

    view: str
    hash: str
    hours: float


@dataclass(frozen=True, kw_only=True)
class Training:
    """A model that gets what was declared only by a training.

    Args:
        version: its champion; None: it has none.
        reasons: what is other than in the champion.
    """

    model: str
    version: str | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ServedVersion:
    """A version that goes on being served.

    Args:
        views: what it reads; ``card_now@3f2a91c0`` is no longer in the plan.
    """

    model: str
    version: str
    role: Role
    views: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BrokenVersion:
    """A version that is served and would no longer be fed."""

    model: str
    version: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A model's champion.

    Args:
        spec: as it was trained; None: its package cannot be read.
    """

    version: str
    spec: ModelSpec | None


@dataclass(frozen=True, kw_only=True)
class PlanEffects:
    """What comes of a new plan.

    Args:
        old: the plan in force, None before the first.
        retained: versions that may answer, with the plans that they pin.
        champions: by model.
    """

    old: FeaturePlan | None
    new: FeaturePlan
    retained: Sequence[Retained]
    champions: Mapping[str, Champion]

    @property
    def needed(self) -> NeededViews:
        """Return what is needed once the new plan is in force."""
        return unite(self.new, self.retained)

    def coming(self) -> list[View | WindowView]:
        """Return the versions of views that are needed and were not."""
        before = unite(self.old, self.retained).readers if self.old else {}
        return [view for view in self.needed.plan.all_views if view.hash not in before]

    def retiring(self, hours: float) -> list[RetiringView]:
        """Return the versions of views that were needed and are not; retired after so many hours."""
        after, before = self.needed.readers, unite(self.old, self.retained) if self.old else None
        views = before.plan.all_views if before else ()
        return [RetiringView(view=item.name, hash=item.hash, hours=hours) for item in views if item.hash not in after]

    def trainings(self, models: Iterable[ModelSpec]) -> Iterator[Training]:
        """Yield the models whose champions are not what is declared."""
        pinned = {(model, version): plan for model, version, plan in self.retained}
        for spec in models:
            champion = self.champions.get(spec.name)
            if champion is None:
                yield Training(model=spec.name, version=None, reasons=("it has no champion",))
                continue
            reasons = self._reasons(spec, champion.spec, pinned.get((spec.name, champion.version)))
            if reasons:
                yield Training(model=spec.name, version=champion.version, reasons=reasons)

    def served(self, policy: Callable[[str], TrafficPolicy | None]) -> Iterator[ServedVersion]:
        """Yield the versions with traffic that go on, and on what.

        Args:
            policy: returns a model's traffic policy, if it has one.
        """
        needed = self.needed
        for model, version, plan in self.retained:
            role = self._role(model, version, policy(model))
            if role is not None and plan.project == self.new.project:
                views = tuple(needed.label(view) for view in plan.all_views)
                yield ServedVersion(model=model, version=version, role=role, views=views)

    def breakages(self) -> Iterator[BrokenVersion]:
        """Yield the versions that would no longer be fed."""
        for model, version, plan in self.retained:
            if plan.project != self.new.project:
                reason = f"project {plan.project!r} becomes {self.new.project!r}: its rows have other keys"
                yield BrokenVersion(model=model, version=version, reason=reason)

    def _reasons(self, spec: ModelSpec, old: ModelSpec | None, pinned: FeaturePlan | None) -> tuple[str, ...]:
        if old is None or pinned is None:
            return ("the package of its champion cannot be read",)
        plans = [f"{item.kind} {item.name}" for item in compare_plans(pinned, self.new.select_service(spec.service))]
        # A search has chosen the parameters of the champion.
        live = _LIVE_FIELDS | {"params"} if spec.search else _LIVE_FIELDS
        fields = [item.path[0] for item in find_differences(old, spec) if item.path[0] not in live]
        return tuple(dict.fromkeys([*plans, *fields]))

    def _role(self, model: str, version: str, policy: TrafficPolicy | None) -> Role | None:
        champion = self.champions.get(model)
        if champion is not None and champion.version == version:
            return "champion"
        if policy is None:
            return None
        return "challenger" if policy.challenger == version else "shadow" if version in policy.shadows else None
