"""Find the views that the plan or retained model versions read: these are kept up to date (SEMANTICS 8.2).

The target versions are models and versions that a client has loaded or unloaded, for all servers of a project.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from skewless.contract.errors import PackageError, SkewlessError, StalePlanError
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.definitions.plans.applied_plan import read_applied, read_plan_number
from skewless.infra.models.packages.package import read_pinned_plan
from skewless.infra.models.packages.store import PackageStore, versions_of
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.logger import EventLogger

CHAMPION = "champion"
PLAN = "plan"
# Model, version and its pinned plan.
Retained = tuple[str, str, FeaturePlan]
_PROJECT = "project"
_log = EventLogger()


@dataclass(frozen=True, kw_only=True)
class TargetVersions:
    """The models and versions to load or unload, until changed.

    Args:
        unloaded: models that must not be served.
        pinned: per model, the versions to load in addition to the champion.
    """

    unloaded: frozenset[str] = frozenset()
    pinned: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def versions(self, model: str) -> frozenset[str]:
        """Return the pinned versions of a model."""
        return self.pinned.get(model, frozenset())


class StoredTargetVersions:
    """The target versions of one project, which all its servers read."""

    def __init__(self, state: ProjectState) -> None:
        self._documents = Documents(state.database, "target_versions")

    def revision(self) -> int:
        """Return a number that increases with each change; 0: there are no target versions."""
        return self._documents.revision(_PROJECT)

    def read(self) -> TargetVersions:
        """Return the target versions; empty if there are none.

        Raises:
            PackageError: they are corrupt.
            StoreError: the database is unavailable.
        """
        return _decode_targets(self._documents.get(_PROJECT))

    def load(self, model: str, version: str | None) -> TargetVersions:
        """Load a model, and a version of it in addition to the champion if given; return all target versions."""
        with self._documents.edit(_PROJECT, {"pinned": {}, "unloaded": []}) as body:
            versions = _decode_targets(body)
            body["unloaded"] = sorted(versions.unloaded - {model})
            if version is not None:
                body["pinned"][model] = sorted(versions.versions(model) | {version})
        return _decode_targets(body)

    def unload(self, model: str) -> TargetVersions:
        """Unload a model, and unpin its versions; return all target versions."""
        with self._documents.edit(_PROJECT, {"pinned": {}, "unloaded": []}) as body:
            body["unloaded"] = sorted(_decode_targets(body).unloaded | {model})
            body["pinned"].pop(model, None)
        return _decode_targets(body)


def _decode_targets(body: Any) -> TargetVersions:  # noqa: ANN401 - JSON
    if body is None:
        return TargetVersions()
    try:
        pinned = {str(name): frozenset(map(str, versions)) for name, versions in body["pinned"].items()}
        return TargetVersions(unloaded=frozenset(map(str, body["unloaded"])), pinned=pinned)
    except (KeyError, TypeError, AttributeError) as error:
        raise PackageError("target versions", "are corrupt", fix="load or unload the models again") from error


@dataclass(frozen=True, kw_only=True)
class NeededViews:
    """The views and sources to keep up to date.

    Args:
        plan: the applied plan, plus the views and sources that only models pin. Of a changed view it has several
            versions under one name, the version of the applied plan first.
        applied_hash: hash of the applied plan.
        readers: per view hash, its readers: ``plan``, or a model and its version.
        unreadable: versions with altered packages, whose views are unknown.
    """

    plan: FeaturePlan
    applied_hash: str
    readers: Mapping[str, tuple[str, ...]]
    unreadable: tuple[str, ...] = ()

    def is_only_pinned(self, view: View | WindowView) -> bool:
        """Say whether only models pin a view, and the applied plan no longer has it."""
        return PLAN not in self.readers.get(view.hash, ())

    def label(self, view: View | WindowView) -> str:
        """Return the display name of a view; with its hash if it is not in the applied plan."""
        return f"{view.name}@{view.hash[:8]}" if self.is_only_pinned(view) else view.name

    def select_views(self, names: Sequence[str]) -> Sequence[View]:
        """Return latest-value views by their display names, in this order; without names all of them.

        Raises:
            RequestError: a name is unknown.
        """
        views = {self.label(view): view for view in self.plan.views}
        for name in names:
            check_known("view", name, views)
        return [views[name] for name in names] or self.plan.views


class NeededViewsMonitor:
    """Reads the needed views, again after a change of the plan, an alias, a traffic policy or the target versions.

    Args:
        state: the project's state folder.
        store: the packages; their plans are read if a trusted key has signed them.
        keep: number of champions of a model that a rollback may return to, including the current one.
    """

    def __init__(self, state: ProjectState, store: PackageStore, keep: int) -> None:
        self._state = state
        self._store = store
        self._keep = keep
        self._cached: tuple[object, NeededViews] | None = None
        self._pinned: dict[tuple[str, str], FeaturePlan] = {}

    def read(self) -> NeededViews:
        """Return the needed views; the same object as before if nothing has changed.

        Raises:
            StalePlanError: no plan was applied yet, or it is corrupt.
            PackageError: an alias, a policy or the target versions are corrupt.
            StoreError: the database is unavailable.
        """
        # Before the values: if they change during the work, the next call reads them again.
        aliases, traffic, models = self._store.aliases, self._store.traffic, self._store.packages.list_models()
        moves = [(model, aliases.number(model, CHAMPION), traffic.number(model)) for model in models]
        targets = StoredTargetVersions(self._state).revision()
        stamp = read_plan_number(self._state), targets, moves, self._state.database.outages()
        if self._cached is None or self._cached[0] != stamp:
            applied = read_applied(self._state)
            if applied is None:
                raise StalePlanError("project", "has no applied plan", fix="run `skewless apply`")
            retained, unreadable = self.retained()
            self._cached = stamp, merge_needed_views(applied.plan, retained, unreadable)
        return self._cached[1]

    def retained(self) -> tuple[list[Retained], tuple[str, ...]]:
        """Return the versions that may serve requests, and the names of versions with altered packages.

        Raises:
            PackageError: an alias, a policy or the target versions are corrupt.
        """
        retained, unreadable = [], []
        pinned = StoredTargetVersions(self._state).read().pinned
        for model in self._store.packages.list_models():
            # The last champions, the versions of the traffic policy, and versions that a client has loaded.
            policy = self._store.traffic.get(model)
            champions, named = retained_champions(self._store, model, self._keep), versions_of(policy) if policy else ()
            for version in dict.fromkeys([*champions, *named, *sorted(pinned.get(model, ()))]):
                try:
                    retained.append((model, version, self._read_plan(model, version)))
                except PackageError as error:
                    # Its views are unknown, so nothing is retired until it can be read.
                    _log.warning("package_unreadable", model=model, version=version, error=str(error))
                    unreadable.append(f"{model} {version}")
        return retained, tuple(unreadable)

    def find_unfed_views(self, model: str, version: str) -> list[str]:
        """Return the views of a version that are not kept up to date; empty if this is unknown.

        Raises:
            PackageError: the version's package is altered.
        """
        try:
            readers = self.read().readers
        except SkewlessError:
            return []
        return [view.name for view in self._read_plan(model, version).all_views if view.hash not in readers]

    def _read_plan(self, model: str, version: str) -> FeaturePlan:
        if (model, version) not in self._pinned:  # a package is immutable
            self._pinned[model, version] = read_pinned_plan(self._store, model, version)
        return self._pinned[model, version]


def merge_needed_views(
    plan: FeaturePlan, retained: Iterable[Retained], unreadable: tuple[str, ...] = ()
) -> NeededViews:
    """Return the views that a plan and the versions that may serve requests need.

    A source has the definition of the applied plan, plus the columns that only older views read, so that events with
    these columns are still parsed.

    Args:
        plan: the applied plan.
        retained: model, version and pinned plan of each version.
    """
    readers: dict[str, list[str]] = {view.hash: [PLAN] for view in plan.all_views}
    views, windows = list(plan.views), list(plan.windows)
    sources = {source.name: source for source in plan.sources}
    for model, version, pinned in retained:
        # The keys of another project's rows are different, so nothing here could update them.
        if pinned.project != plan.project:
            continue
        for view in pinned.all_views:
            if view.hash not in readers:
                same_kind: list[Any] = views if isinstance(view, View) else windows
                same_kind.append(view)
            readers.setdefault(view.hash, []).append(f"{model} {version}")
        # Also for known views: older versions may read columns that the applied source no longer declares.
        for source in pinned.sources:
            sources[source.name] = _merge_sources(sources.get(source.name), source)
    needed = replace(plan, views=tuple(views), windows=tuple(windows), sources=tuple(sources.values()))
    return NeededViews(
        plan=needed,
        applied_hash=plan.hash,
        readers={view_hash: tuple(names) for view_hash, names in readers.items()},
        unreadable=unreadable,
    )


def retained_champions(store: PackageStore, model: str, keep: int) -> list[str]:
    """Return the distinct last champions of a model, the current one first.

    Raises:
        PackageError: an alias is corrupt.
    """
    champions: dict[str, None] = {}
    for move in store.aliases.read_latest_first(model, CHAMPION):
        if len(champions) == keep:
            break
        champions[move.to] = None
    return list(champions)


def _merge_sources(current: EventSource | None, older: EventSource) -> EventSource:
    if current is None:
        return older
    names = {column.name for column in current.columns} | {current.event_column}
    more = tuple(column for column in older.columns if column.name not in names)
    return replace(current, columns=(*current.columns, *more)) if more else current
