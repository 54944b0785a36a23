"""Plan, then apply: what the definitions would change, computed first and performed second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from infra.applied import Applied, definitions_sha256, file_sha256, read_applied, save_applied
from infra.compiler.compile import Compiled, compile_repo
from infra.offline.exact_sums import check_sums
from infra.offline.labels import find_labels, label_columns
from infra.offline.log_parts import log_parts
from infra.offline.sources import Table, check_columns, find_table, view_columns, view_table
from infra.packages.aliases import Aliases
from infra.packages.package import open_package
from infra.registry import check_registration, registered, registry_path
from infra.served_model import pinned_plan
from skewless.changes import Breakage, Change, compare_named, compare_plans, find_breakages
from skewless.dtypes import DType
from skewless.errors import SourceError
from skewless.plan import FeaturePlan
from skewless.windows.view import EventSource


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """What ``apply`` would do.

    Args:
        hash: the compiled plan's hash.
        changes: differences to the plan in force.
        breakages: served models that would lose a view.
    """

    hash: str
    changes: list[Change]
    breakages: list[Breakage]


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Compares and puts in force the definitions of one repo."""

    repo: Path
    state: Path
    connection: duckdb.DuckDBPyConnection

    def plan(self) -> PlanReport:
        """Return what would change; nothing is touched.

        Raises:
            DefinitionError: a definition cannot be right, or Feast refuses it.
            SourceError: a source is missing, broken or of another shape.
        """
        compiled = self._compile()
        self._check_sums(compiled)
        check_registration(self.repo, compiled.feast_objects)
        return self._compare(compiled)

    def apply(self, now_us: int) -> PlanReport:
        """Register the definitions with Feast and put the plan in force; return what changed.

        Raises:
            DefinitionError: a definition cannot be right; nothing was changed.
            SourceError: a source is missing, broken or of another shape; nothing was changed.
            StoreError: the disk refused; nothing was changed.
        """
        compiled = self._compile()
        self._check_sums(compiled)
        report = self._compare(compiled)
        self.state.mkdir(parents=True, exist_ok=True)
        place = registry_path(self.repo)
        with registered(self.repo, compiled.feast_objects):
            applied = Applied(
                plan=compiled.plan,
                models=compiled.models,
                applied_us=now_us,
                registry=place,
                registry_sha256=file_sha256(self.repo / place),
                definitions_sha256=definitions_sha256(self.repo),
            )
            save_applied(self.state, applied)
        return report

    def _compile(self) -> Compiled:
        compiled = compile_repo(self.repo)
        for view in compiled.plan.views:
            table = view_table(self.repo, view)
            check_columns(table, table.column_types(self.connection), view_columns(view))
        for source in compiled.plan.sources:
            history = _history(self.repo, source)
            if history is not None:
                check_columns(history, history.column_types(self.connection), event_columns(source))
        for spec in compiled.models:
            table = find_labels(self.repo, spec)
            pinned = compiled.plan.only(spec.service)
            check_columns(table, table.column_types(self.connection), label_columns(pinned, spec))
        return compiled

    def _check_sums(self, compiled: Compiled) -> None:
        """Refuse views that would leave out events of the log, which were accepted when nobody summed their columns."""
        applied = read_applied(self.state)
        known = {view.hash for view in applied.plan.windows} if applied else set()
        for view in compiled.plan.windows:
            if view.hash not in known:
                check_sums(self.connection, view, log_parts(self.state / "log", view.source))

    def _compare(self, compiled: Compiled) -> PlanReport:
        applied = read_applied(self.state)
        changes = compare_plans(applied.plan if applied else None, compiled.plan)
        before = {spec.name: spec for spec in applied.models} if applied else {}
        changes += compare_named("model", before, {spec.name: spec for spec in compiled.models})
        return PlanReport(
            hash=compiled.plan.hash, changes=changes, breakages=find_breakages(compiled.plan, self._champions())
        )

    def _champions(self) -> Iterator[tuple[str, str, FeaturePlan]]:
        root = self.state / "packages"
        for folder in sorted(root.iterdir()) if root.is_dir() else []:
            version = Aliases(root).get(folder.name, "champion")
            if version is not None:
                yield folder.name, version, pinned_plan(open_package(root, folder.name, version))


def event_columns(source: EventSource) -> dict[str, DType]:
    """Return the columns that the history of an event source must have, with the types that they must fit."""
    wanted = {column.name: column.dtype for column in source.columns}
    wanted[source.event_column] = DType.TIMESTAMP
    if source.created_column:
        wanted[source.created_column] = DType.TIMESTAMP
    return wanted


def _history(repo: Path, source: EventSource) -> Table | None:
    """Return the table of earlier events; None where there is no file: a stream may begin with its first event."""
    if source.history is None:
        return None
    try:
        return find_table(repo, source.history, f"history of event source {source.name!r}", event_columns(source))
    except SourceError:
        return None
