"""Which versions of views are needed, and by whom: these are fed until nothing reads them any more (SEMANTICS 8.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from skewless.contract.errors import PackageError, SkewlessError, StalePlanError
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.packages.aliases import Aliases
from skewless.infra.packages.package import read_pinned_plan
from skewless.infra.packages.store import PackageStore
from skewless.infra.plans.applied_plan import read_applied
from skewless.infra.plans.target_versions import FILE, TargetVersionsFile
from skewless.infra.rollout.traffic import Traffic, versions_of
from skewless.infra.storage.names import list_models

CHAMPION = "champion"
PLAN = "plan"
# Model, version and the plan that it pins.
Retained = tuple[str, str, FeaturePlan]
_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class NeededViews:
    """All that has to be fed.

    Args:
        plan: the plan in force, to which the views and sources are added that only models pin. Of a view that changed
            it holds several versions under one name, the one in force first.
        in_force: hash of the plan in force.
        readers: by view hash, who reads it: ``plan``, or a model and its version.
        unreadable: versions whose packages are altered, so that nobody knows which views they need.
    """

    plan: FeaturePlan
    in_force: str
    readers: Mapping[str, tuple[str, ...]]
    unreadable: tuple[str, ...] = ()

    def only_pinned(self, view: View | WindowView) -> bool:
        """Say whether a view is no longer in the plan in force."""
        return PLAN not in self.readers.get(view.hash, ())

    def label(self, view: View | WindowView) -> str:
        """Return how people call a version of a view: by its name, with its hash where the plan has another."""
        return f"{view.name}@{view.hash[:8]}" if self.only_pinned(view) else view.name


class NeededViewsMonitor:
    """Reads what is needed, again when the plan, an alias, a traffic policy or a wish has changed.

    Args:
        state: the project's state folder.
        store: the packages, whose plans are read if somebody trusted has signed them.
        keep: champions of a model that a rollback may return to, the present one among them.
    """

    def __init__(self, state: Path, store: PackageStore, keep: int) -> None:
        self._state = state
        self._store = store
        self._packages = store.root
        self._keep = keep
        self._known: tuple[object, NeededViews] | None = None
        self._pinned: dict[tuple[str, str], FeaturePlan] = {}

    def read(self) -> NeededViews:
        """Return what is needed now; the same object as before where nothing has changed.

        Raises:
            StalePlanError: nothing was applied yet, or the plan is damaged.
            PackageError: an alias, a policy or the wishes are damaged.
        """
        stamp = self._stamp()
        if self._known is None or self._known[0] != stamp:
            self._known = stamp, self._find()
        return self._known[1]

    def _find(self) -> NeededViews:
        applied = read_applied(self._state)
        if applied is None:
            raise StalePlanError(f"file {self._state / 'plan.json'}", "is missing", fix="run `skewless apply`")
        retained, unreadable = self.retained()
        return unite(applied.plan, retained, unreadable)

    def retained(self) -> tuple[list[Retained], tuple[str, ...]]:
        """Return the versions that may answer, and those of them whose packages are altered.

        Raises:
            PackageError: an alias, a policy or the wishes are damaged.
        """
        retained, unreadable = [], []
        pinned = TargetVersionsFile(self._state).read().pinned
        for model in list_models(self._packages):
            for version in retained_versions(self._packages, model, self._keep, pinned.get(model, ())):
                try:
                    retained.append((model, version, self._plan_of(model, version)))
                except PackageError as error:
                    _log.warning("package_unreadable", model=model, version=version, error=str(error))
                    unreadable.append(f"{model} {version}")
        return retained, tuple(unreadable)

    def unfed(self, model: str, version: str) -> list[str]:
        """Return the views of a version that nothing feeds now; none where nobody knows what is fed.

        Raises:
            PackageError: the version's package is altered.
        """
        try:
            readers = self.read().readers
        except SkewlessError:
            return []
        return [view.name for view in self._plan_of(model, version).all_views if view.hash not in readers]

    def _plan_of(self, model: str, version: str) -> FeaturePlan:
        if (model, version) not in self._pinned:  # a package is immutable
            self._pinned[model, version] = read_pinned_plan(self._store, model, version)
        return self._pinned[model, version]

    def _stamp(self) -> object:
        aliases, traffic = Aliases(self._packages), Traffic(self._packages)
        moves = [
            (model, aliases.number(model, CHAMPION), traffic.number(model)) for model in list_models(self._packages)
        ]
        return _version(self._state / "plan.json"), _version(self._state / FILE), moves


def unite(plan: FeaturePlan, retained: Iterable[Retained], unreadable: tuple[str, ...] = ()) -> NeededViews:
    """Return what a plan and the versions that may answer need.

    A source keeps the definition that is in force; columns that only older views read are added to it, so that events
    which still carry them are still understood.

    Args:
        retained: model, version and pinned plan.
    """
    readers: dict[str, list[str]] = {view.hash: [PLAN] for view in plan.all_views}
    views, windows = list(plan.views), list(plan.windows)
    sources = {source.name: source for source in plan.sources}
    for model, version, pinned in retained:
        if pinned.project != plan.project:
            continue
        for view in pinned.all_views:
            if view.hash not in readers:
                of_kind: list[Any] = views if isinstance(view, View) else windows
                of_kind.append(view)
            readers.setdefault(view.hash, []).append(f"{model} {version}")
        for source in pinned.sources:
            sources[source.name] = _joined(sources.get(source.name), source)
    fed = replace(plan, views=tuple(views), windows=tuple(windows), sources=tuple(sources.values()))
    return NeededViews(
        plan=fed,
        in_force=plan.hash,
        readers={name: tuple(found) for name, found in readers.items()},
        unreadable=unreadable,
    )


def retained_versions(packages: Path, model: str, keep: int, pinned: Iterable[str] = ()) -> list[str]:
    """Return the versions of a model that answer, or that a rollback may return to, each once.

    These are the last champions, the versions of the traffic policy, and those that somebody has loaded.

    Args:
        keep: how many champions, the present one among them.

    Raises:
        PackageError: an alias or a policy is damaged.
    """
    policy = Traffic(packages).get(model)
    named = versions_of(policy) if policy else ()
    return list(dict.fromkeys([*retained_champions(packages, model, keep), *named, *sorted(pinned)]))


def retained_champions(packages: Path, model: str, keep: int) -> list[str]:
    """Return the last champions of a model, the present one first, each once.

    Raises:
        PackageError: an alias is damaged.
    """
    champions: dict[str, None] = {}
    for move in Aliases(packages).read_latest_first(model, CHAMPION):
        if len(champions) == keep:
            break
        champions[move.to] = None
    return list(champions)


def _joined(current: EventSource | None, older: EventSource) -> EventSource:
    if current is None:
        return older
    names = {column.name for column in current.columns} | {current.event_column}
    more = tuple(column for column in older.columns if column.name not in names)
    return replace(current, columns=(*current.columns, *more)) if more else current


def _version(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_ino)
