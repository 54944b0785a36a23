"""Validation of a project's sources and labels, with Data Docs; and suites that its current data pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import GateError
from skewless.contract.plan import View
from skewless.contract.spec import ModelSpec
from skewless.infra.models.packages.package import open_package
from skewless.infra.platform.storage.durable import make_folder, replace_durable
from skewless.infra.reads.offline.labels import find_labels, label_source
from skewless.validation.data_docs import data_docs_folder, write_data_docs
from skewless.validation.gate_report import GateReport
from skewless.validation.label_gate import known_labels
from skewless.validation.suggest import Range, SuggestedExpectation, TableSummary, suggest_suite, summarise
from skewless.validation.suites import FILE, LABELS, suite_source
from skewless.workspace import Workspace

# Great Expectations' names of DuckDB's types.
_TYPES = {name: name for name in ("BIGINT", "BOOLEAN", "DOUBLE", "INTEGER")} | {"FLOAT": "REAL", "VARCHAR": "String"}


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """The verdicts on sources and labels.

    Args:
        docs: index of the written Data Docs; None: none were written.
    """

    reports: list[GateReport]
    docs: Path | None = None

    @property
    def error(self) -> GateError | None:
        """Return the error of the first closed gate; None: all gates are open."""
        try:
            for report in self.reports:
                report.raise_if_failed()
        except GateError as error:
            return error
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; ``docs`` only if they were written."""
        body = {"success": self.error is None, "reports": [report.as_dict() for report in self.reports]}
        return body if self.docs is None else body | {"docs": str(self.docs)}


def validate(
    project: Workspace,
    names: Sequence[str] = (),
    *,
    everything: bool = False,
    record: bool = False,
    docs: Path | None = None,
) -> ValidationReport:
    """Check sources and label tables against the suites of ``expectations.py``.

    Args:
        names: views and models; empty: all.
        everything: check labels that passed before again; else only new labels.
        record: record which labels passed, and store Data Docs in the state folder.
        docs: folder for Data Docs.

    Raises:
        RequestError: a name is neither a view nor a model.
        SourceError: a source is missing or corrupt.
    """
    views, models = project.applied.plan.views, project.applied.models
    reports = project.checks.check_all(views, models, names, everything=everything, remember=record)
    return ValidationReport(reports=reports, docs=_write_docs(project, reports, docs) if docs or record else None)


def _write_docs(project: Workspace, reports: Sequence[GateReport], docs: Path | None) -> Path:
    folder = (docs or data_docs_folder(project.state)).resolve()
    if docs is None:
        make_folder(folder)
    return write_data_docs(reports, folder, site=project.applied.plan.project, now_us=project.clock.now_us())


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A suggested ``expectations.py``.

    Args:
        path: of the file.
        source: its suggested text.
        suites: expectations by view and label table.
        now: current text of the file; None: it does not exist.
        written: whether the suggestion was written to the file.
    """

    path: Path
    source: str
    suites: Mapping[str, Sequence[SuggestedExpectation]]
    now: str | None
    written: bool = False

    @property
    def diff(self) -> str:
        """Return the difference to the current file, as a unified diff."""
        before = (self.now or "").splitlines(keepends=True)
        after = self.source.splitlines(keepends=True)
        return "".join(unified_diff(before, after, f"{self.path.name}", f"{self.path.name} (suggested)"))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, with the number of expectations of each suite."""
        expectations = {name: len(suite) for name, suite in self.suites.items()}
        return {
            "path": str(self.path),
            "written": self.written,
            "expectations": expectations,
            "source": self.source,
            "diff": self.diff,
        }


def suggest_suites(project: Workspace, *, write: bool = False) -> Suggestion:
    """Return suites that the current data pass.

    Args:
        write: write the file if it does not exist; an existing file is never replaced.

    Raises:
        SourceError: a source is missing or corrupt.
        StoreError: the disk failed.
    """
    ranges = _training_ranges(project)
    suites = {
        view.name: suggest_suite(_view(project, view), ranges.get(view.name)) for view in project.applied.plan.views
    }
    for spec in project.models:
        suites[f"{LABELS}:{spec.name}"] = suggest_suite(_labels(project, spec))
    path = project.repo / FILE
    now = path.read_text(encoding="utf-8") if path.is_file() else None
    source, written = suite_source(suites), write and now is None
    if written:
        replace_durable(path, source.encode(), 0o644)
    return Suggestion(path=path, source=source, suites=suites, now=now, written=written)


def _view(project: Workspace, view: View) -> TableSummary:
    keys, event = [column.name for column in view.keys], view.source.event_column
    # A correction repeats keys and time. It is not a duplicate if rows have the time when they were written.
    sets = [keys, [*keys, event]] if view.source.created_column is None else []
    table, query = project.checks.published(view)
    with table.open(project.connection):
        summary = summarise(project.connection, query, table.parameters, view.features, sets)
    unique = next((tuple(names) for names, n in zip(sets, summary.distinct, strict=True) if n == summary.rows), ())
    return TableSummary(
        name=view.name, rows=summary.rows, present=(*keys, event), columns=summary.columns, unique=unique
    )


def _labels(project: Workspace, spec: ModelSpec) -> TableSummary:
    plan, spec = project.applied.plan.select_service(spec.service), project.checks.resolve_labels(spec)
    labels = label_source(spec)
    keys = [labels.column(column.name) for column in plan.join_keys]
    fields = [Column(name=labels.column(column.name), dtype=column.dtype) for column in plan.request]
    label = Column(name=labels.label, dtype=DType.FLOAT64)
    classes = {"binary": 2, "multiclass": len(spec.classes)}.get(spec.task)
    table = find_labels(project.repo, spec, plan)
    query, parameters = known_labels(spec, table, project.clock.now_us())
    types = table.column_types(project.connection)
    with table.open(project.connection):
        summary = summarise(project.connection, query, parameters, [*fields, label])
    return TableSummary(
        name=f"{LABELS}:{spec.name}",
        rows=summary.rows,
        present=(*keys, labels.event_time),
        columns=summary.columns,
        types={name: _TYPES[types[name]] for name in [*keys, *(f.name for f in fields)] if types[name] in _TYPES},
        classes={} if classes is None else {labels.label: classes},
    )


def _training_ranges(project: Workspace) -> dict[str, dict[str, Range]]:
    """Return the range of the champions' training data, by view and feature."""
    ranges: dict[str, dict[str, Range]] = {}
    for spec in project.models:
        champion = project.store.aliases.get(spec.name, "champion")
        profile: Any = open_package(project.store, spec.name, champion).profile if champion else {"features": {}}
        for ref in project.applied.plan.service(spec.service).features:
            item = profile["features"].get(ref.label, {"min": None})
            if item["min"] is not None:
                low, high = ranges.setdefault(ref.group, {}).get(ref.name, (item["min"], item["max"]))
                ranges[ref.group][ref.name] = (min(low, item["min"]), max(high, item["max"]))
    return ranges
