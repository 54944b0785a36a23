"""Plan and apply: compute what new definitions would change, then make the changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from skewless.contract.arrow_types import arrow_type
from skewless.contract.changes import Change
from skewless.contract.columns import digest
from skewless.contract.destinations import check_sinks
from skewless.contract.dtypes import DType
from skewless.contract.errors import PackageError, SourceError
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.definitions.compiler.compiled_repo import CompiledRepo
from skewless.infra.definitions.plans.applied_plan import (
    EXPECTATIONS,
    AppliedPlan,
    find_edited_files,
    hash_definition_files,
    hash_file,
    hold_apply,
    read_plan_number,
    read_registry_state,
    read_valid,
    save_applied,
)
from skewless.infra.definitions.plans.needed_views import CHAMPION, NeededViewsMonitor
from skewless.infra.definitions.plans.plan_effects import (
    BrokenVersion,
    Build,
    Champion,
    PlanEffects,
    RetiringView,
    ServedVersion,
    Training,
)
from skewless.infra.definitions.plans.reverts import NO_PLAN, check_expected, compare_all, find_reverts
from skewless.infra.log.catalog import log_ends, log_partitions
from skewless.infra.log.generations import Generations
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.models.packages.package import read_spec
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.formats.codec import check_formats
from skewless.infra.platform.host.processes import reject_running, run_behind_servers
from skewless.infra.platform.storage.durable import make_folder
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.shared_facts import record_shared
from skewless.infra.reads.offline.labels import find_labels, label_columns, label_source, table_spec
from skewless.infra.reads.offline.log_parts import read_log_partitions
from skewless.infra.reads.offline.source_columns import check_columns, check_view
from skewless.infra.reads.offline.sources import Table, find_table, has_files, is_remote, view_table
from skewless.infra.reads.offline.window_events import LogPartition, WindowEvents
from skewless.infra.reads.online.build_rate import estimate_build_s

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """The changes of an apply, and their effects.

    Args:
        hash: hash of the compiled plan.
        replaces: hash of the applied plan; ``none``: there is none.
        reverts: kind and name of definitions that another checkout has applied, and that this one would set back.
        changes: differences from the applied plan.
        builds: new versions of views.
        retires: versions of views without readers.
        trains: models that need a training to get the new definitions.
        serves: versions that are still served.
        breakages: served versions whose views would no longer be kept up to date.
        notes: further notes, one sentence each.
        applied: whether the plan was applied.
    """

    hash: str
    replaces: str
    reverts: list[str]
    changes: list[Change]
    builds: list[Build]
    retires: list[RetiringView]
    trains: list[Training]
    serves: list[ServedVersion]
    breakages: list[BrokenVersion]
    notes: list[str]
    applied: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; the hash has the key ``plan``."""
        body = asdict(self)
        return body | {"plan": body.pop("hash"), "changes": [change.as_dict() for change in self.changes]}


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Plans and applies the definitions of one repo; connects to DuckDB only to read tables."""

    repo: Path
    state: ProjectState
    connect: Callable[[], duckdb.DuckDBPyConnection]
    settings: Settings = field(default_factory=Settings)

    def plan(self) -> PlanReport:
        """Return the changes of an apply, without making them.

        Raises:
            DefinitionError: a definition is invalid, or Feast rejects it.
            SourceError: a source is missing, corrupt or has other columns.
        """
        return run_behind_servers(self.state, self._plan)

    def _plan(self) -> PlanReport:
        from skewless.infra.definitions.plans.registry import check_registration  # noqa: PLC0415 - imports Feast

        compiled, report = self._compile()
        check_registration(self.repo, compiled.feast_objects)
        return report

    def apply(self, now_us: int, expect: str | None = None) -> PlanReport:
        """Register the definitions with Feast and apply the plan; return the changes.

        First, the tables of a database that an older release wrote are changed, in one transaction.

        Args:
            expect: hash of the plan that may be replaced, whatever that sets back; ``none``: no plan.

        Raises:
            DefinitionError: a definition is invalid; nothing was changed.
            SourceError: a source is missing, corrupt or has other columns; nothing was changed.
            ConflictError: another process applies a plan, or a process uses tables that have to be changed; another
                plan is applied than expected, or it has what this checkout would set back. Nothing was changed.
            StoreError: the disk or the database failed; nothing was changed.
        """
        from skewless.infra.definitions.plans.registry import register_objects, registry_path  # noqa: PLC0415 - imports Feast

        database = self.state.database
        if database.schema_version():
            database.upgrade(partial(reject_running, self.state))
        number, applied = read_plan_number(self.state), read_valid(self.state)
        # Hashed first: an edit made meanwhile is shown by the next plan.
        files = hash_definition_files(self.repo, applied.files if applied else ())
        compiled, report = run_behind_servers(self.state, self._compile)
        check_expected(applied, expect, report.reverts)
        loaded = hash_definition_files(self.repo, compiled.files)
        files = {name: files.get(name, sha256) for name, sha256 in loaded.items()}
        if applied is not None and applied.files == files and self._is_applied(compiled, applied):
            self._record_shared()
            return replace(report, applied=True)
        make_folder(self.state.folder)
        registry = registry_path(self.repo)
        # Held only now: what does not compile changes nothing, not even a lease. Not in idle time: others wait for it.
        with hold_apply(self.state) as lease, register_objects(self.repo, compiled.feast_objects):
            applied = AppliedPlan(
                plan=compiled.plan,
                models=compiled.models,
                applied_us=now_us,
                registry=registry,
                registry_sha256=hash_file(self.repo / registry),
                files=files,
                decisions=compiled.decisions,
            )
            # Inside the block: if the plan cannot be saved, the registry is restored.
            save_applied(self.state, applied, number + 1, lease)
            self._record_shared()
        return replace(report, applied=True)

    def _record_shared(self) -> None:
        storage = self.state.storage if self.state.storage_url is not None else None
        record_shared(self.state.database, storage, self.settings.stream_partitions)

    def _is_applied(self, compiled: CompiledRepo, applied: AppliedPlan) -> bool:
        """Return whether an apply would change nothing."""
        # A registry that is not a file may have changed without a trace: it is written again.
        is_file = (self.repo / applied.registry).is_file()
        is_current = is_file and read_registry_state(self.repo, self.state, applied) == "current"
        return is_current and _identity(compiled) == _identity(applied)

    def _compile(self) -> tuple[CompiledRepo, PlanReport]:
        """Return the definitions, checked against their tables, and the changes."""
        from skewless.infra.definitions.compiler.compile import compile_repo  # noqa: PLC0415 - imports Feast

        compiled = compile_repo(self.repo)
        check_formats(compiled.plan.sources, self.settings)
        tables = self._tables(compiled)
        for view in compiled.plan.views:
            name, types = tables[f"view {view.name}"]
            if types is not None:
                check_view(name, types, view)
        for source in compiled.plan.sources:
            name, types = tables[f"source {source.name}"]
            if types is not None:
                check_columns(name, types, event_columns(source))
            check_logged_types(self.state, source)
        for spec in compiled.models:
            name, types = tables[f"labels {spec.name}"]
            if types is not None:
                part, own = compiled.plan.select_service(spec.service), table_spec(spec) or spec
                check_columns(name, types, label_columns(part, own))
        # The events of the log were accepted without a check that new views can sum them.
        applied = read_valid(self.state)
        known = {view.hash for view in applied.plan.windows} if applied else set()
        for window in compiled.plan.windows:
            if window.hash not in known:
                check_sums(self.connect(), window, read_log_partitions(self.state, window.source))
        return compiled, self._compare(compiled)

    def _tables(self, compiled: CompiledRepo) -> dict[str, tuple[str, Mapping[str, str] | None]]:
        """Return the name and the column types of the table behind each source; types None: there is no file."""
        plan = compiled.plan
        tables: dict[str, Table | None] = {}
        for view in plan.views:
            tables[f"view {view.name}"] = view_table(self.repo, view) if self._is_named(view.source.path) else None
        for source in plan.sources:
            tables[f"source {source.name}"] = _find_history(self.repo, source, event_columns(source))
        for spec in compiled.models:
            table = table_spec(spec)
            is_named = table is not None and self._is_named(label_source(table).path)
            tables[f"labels {spec.name}"] = find_labels(self.repo, table) if table is not None and is_named else None
        return {
            key: ("", None) if table is None else (table.name, table.column_types(self.connect()))
            for key, table in tables.items()
        }

    def _is_named(self, path: str) -> bool:
        return has_files(self.repo, path) or is_remote(path)

    def find_effects(self, old: FeaturePlan | None, new: FeaturePlan) -> tuple[PlanEffects, tuple[str, ...]]:
        """Return the effects of a plan, and the names of versions whose packages cannot be read."""
        retained, unread = NeededViewsMonitor(self.state, self._store, self.settings.keep_versions).retained()
        policies = {name: self._store.traffic.get(name) for name in self._store.packages.list_models()}
        champions = self._versions({name: self._store.aliases.get(name, CHAMPION) for name in policies})
        challengers = self._versions({name: policy.challenger for name, policy in policies.items() if policy})
        return PlanEffects(old=old, new=new, retained=retained, champions=champions, challengers=challengers), unread

    def _compare(self, compiled: CompiledRepo) -> PlanReport:
        check_sinks((sink for stream in compiled.decisions for sink in stream.sinks), self.settings.sink_hosts)
        applied = read_valid(self.state)
        changes = compare_all(applied, compiled) + self._registry_change(applied)
        effects, unreadable = self.find_effects(applied.plan if applied else None, compiled.plan)
        return PlanReport(
            hash=compiled.plan.hash,
            replaces=NO_PLAN if applied is None else applied.plan.hash,
            reverts=find_reverts(self.repo, self.state, applied, compiled),
            changes=changes,
            builds=[self._build(view, effects.needed.label(view)) for view in effects.find_new_views()],
            retires=effects.find_retiring_views(self.settings.retire_hours),
            trains=list(effects.find_trainings(compiled.models)),
            serves=list(effects.find_served_versions(self._store.traffic.get)),
            breakages=list(effects.find_broken_versions()),
            notes=[
                *self._missing_files(compiled),
                *self._edited_files(applied, changes),
                *effects.describe_rollouts(compiled.models),
                *(
                    f"package {name} cannot be read, so its views are unknown: no view is retired until it can be read"
                    for name in unreadable
                ),
            ],
        )

    @property
    def _store(self) -> PackageStore:
        return PackageStore.of(self.state, self.settings)

    def _registry_change(self, applied: AppliedPlan | None) -> list[Change]:
        """Return the change of this machine's Feast registry, which is not that of the applied plan."""
        if applied is None or read_registry_state(self.repo, self.state, applied) in {"current", "missing"}:
            return []
        return [Change(action="change", kind="registry", name=applied.registry)]

    def _missing_files(self, compiled: CompiledRepo) -> Iterator[str]:
        """Yield a note for each missing file; missing files are checked when they are read."""
        named = [(f"source of view {view.name!r}", view.source.path) for view in compiled.plan.views]
        tables = [spec for model in compiled.models if (spec := table_spec(model)) is not None]
        named += [(f"label table of model {spec.name!r}", label_source(spec).path) for spec in tables]
        for thing, path in named:
            if not has_files(self.repo, path):
                yield f"{thing} has no file yet: put it at {path!r}, or correct the path in the definition"

    def _edited_files(self, applied: AppliedPlan | None, changes: list[Change]) -> Iterator[str]:
        """Yield a note for edited files without changed definitions, about which other commands warn."""
        if applied is None:
            return
        if hash_definition_files(self.repo).get(EXPECTATIONS) != applied.files.get(EXPECTATIONS):
            yield f"{EXPECTATIONS} was edited: its suites take effect at once, without `skewless apply`"
        if (files := find_edited_files(self.repo, applied)) and not changes:
            were = "was" if len(files) == 1 else "were"
            yield f"{', '.join(files)} {were} edited without changed definitions: `skewless apply` ends the warnings"

    def _build(self, view: View | WindowView, label: str) -> Build:
        if isinstance(view, View):
            return Build(view=label, hash=view.hash, kind="rows", rows=self._new_rows(view))
        generations = Generations(self.state)
        if generations.find_live(view) is not None:
            return Build(view=label, hash=view.hash, kind="catch up", rows=None)
        events = sum(end + 1 for end in log_ends(self.state, view.source).values())
        seconds = estimate_build_s(generations.folder, events)
        return Build(view=label, hash=view.hash, kind="states", rows=events, seconds=seconds)

    def _new_rows(self, view: View) -> int | None:
        """Return the number of rows that the source has more than the log; None: unknown without reading the source."""
        if not has_files(self.repo, view.source.path):
            return 0
        rows = view_table(self.repo, view).count_rows(self.connect())
        return None if rows is None else max(0, rows - PartitionLog(self.state, view.partition).next_seq())

    def _versions(self, versions: Mapping[str, str | None]) -> dict[str, Champion]:
        """Return the versions of models with their specs; a model without a version is omitted."""
        result = {}
        for name, version in versions.items():
            if version is not None:
                try:
                    spec = read_spec(self._store, name, version)
                except PackageError:
                    spec = None
                result[name] = Champion(version=version, spec=spec)
        return result


def event_columns(source: EventSource) -> dict[str, DType]:
    """Return the columns that the history of an event source must have, with their types."""
    columns = {column.name: column.dtype for column in source.columns}
    columns[source.event_column] = DType.TIMESTAMP
    if source.created_column:
        columns[source.created_column] = DType.TIMESTAMP
    return columns


def _find_history(repo: Path, source: EventSource, declared: Mapping[str, DType]) -> Table | None:
    """Return the table of earlier events; None where there is no file: a stream may begin with its first event."""
    if source.history is None:
        return None
    try:
        return find_table(repo, source.history, f"history of event source {source.name!r}", declared)
    except SourceError:
        return None


def _identity(declared: CompiledRepo | AppliedPlan) -> str:
    """Return a digest of the plan, the models and the decision streams as JSON, in which lists are tuples, too."""
    parts = [[item.as_dict() for item in items] for items in (declared.models, declared.decisions)]
    return digest([declared.plan.as_dict(), *parts])


if TYPE_CHECKING:
    import duckdb


def check_logged_types(state: ProjectState, source: EventSource) -> None:
    """Check that the log of a source has its columns with the declared types: else a stream worker would fail later.

    Args:
        state: of the project.

    Raises:
        SourceError: the log has a column with another type.
        StoreError: a file of the log is corrupt.
    """
    for partition in log_partitions(state, source.name):
        logged = {field.name: field.type for field in PartitionLog(state, partition).schema()}
        for column in source.columns:
            logged_type = logged.get(column.name, pa.null())
            if not pa.types.is_null(logged_type) and logged_type != arrow_type(column.dtype):
                name = next((str(dtype) for dtype in DType if arrow_type(dtype) == logged_type), str(logged_type))
                raise SourceError(
                    f"event source {source.name!r} column {column.name!r}",
                    f"is declared as {column.dtype}, but is {name} in the log",
                    fix="use a new name for the column with the new type",
                )


def check_sums(connection: duckdb.DuckDBPyConnection, view: WindowView, parts: Sequence[LogPartition]) -> None:
    """Check that no accepted event has a value too large for an exact sum: it would not count in the view.

    New events with such values are rejected (SEMANTICS 3.9).

    Raises:
        SourceError: names the column and the number of such events.
    """
    for column, count in WindowEvents(connection, view, parts, {}, known=False).count_unsummable().items():
        digits = view.scales.get(column, 0)
        lower = f"lower the tag skewless.scale.{column}, which is {digits}, or " if digits else ""
        raise SourceError(
            f"windowed view {view.name!r} column {column!r}",
            "has values in accepted events that are too large for an exact sum",
            value=f"{count} {'event' if count == 1 else 'events'}",
            fix=f"{lower}exclude these events with a bool column and the tag skewless.where",
        )
