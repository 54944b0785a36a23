"""Runs the data gates of a project: on new rows before acceptance, labels before training, sources on request.

A batch of rows that is rejected goes to quarantine, with the reason for each bad row.
"""

from __future__ import annotations

import uuid
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.contract.bounds import Bounds
from skewless.contract.clock import Clock
from skewless.contract.errors import DefinitionError
from skewless.contract.labels import Outcomes
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.spec import ModelSpec
from skewless.infra.log.log_columns import EVENT, INGEST, REJECT, RUN, SEQ
from skewless.infra.log.quarantine import describe_rejection
from skewless.infra.platform.storage.durable import make_folder, remove_at_end
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.changes import Window, checked_rows_sql
from skewless.infra.reads.offline.source_columns import check_view
from skewless.infra.reads.offline.sources import Table, view_table
from skewless.infra.reads.offline.sql import quote, sql_literal
from skewless.infra.records.outcomes.label_rows import resolve_labels
from skewless.infra.records.outcomes.labelled_log import LabelledLog
from skewless.validation.gate_report import GateReport
from skewless.validation.gates import ROW, check_batch, find_failed_rows
from skewless.validation.label_gate import LabelGate
from skewless.validation.suites import FILE, LABELS, compile_bounds, load_suites

if TYPE_CHECKING:
    import duckdb
    from great_expectations.expectations.expectation import Expectation


@dataclass(frozen=True, kw_only=True)
class SourceChecks:
    """Runs the suites of a repo's ``expectations.py``.

    Args:
        known: names of the views and models that a suite may check.
        current: hashes of the applied views. For another version of a view, only expectations about its columns are
            checked.
        plan: the applied plan; None: no labels are checked.
    """

    repo: Path
    state: ProjectState
    connection: duckdb.DuckDBPyConnection
    clock: Clock
    known: frozenset[str]
    current: frozenset[str] = frozenset()
    plan: FeaturePlan | None = None

    @cached_property
    def suites(self) -> Mapping[str, Sequence[Expectation]]:
        """The suites by view name; empty if the repo has no expectations.

        Raises:
            DefinitionError: a suite's view or model does not exist, so its gate would never run.
        """
        suites = load_suites(self.repo)
        for name in suites:
            if name.removeprefix(f"{LABELS}:") not in self.known | {LABELS}:
                known = ", ".join(sorted(self.known | {LABELS}))
                raise DefinitionError(
                    f"suite in {FILE}", "is not for a view or model of the plan", value=name, fix=f"use one of {known}"
                )
        return suites

    def check_rows(self, view: View, rows: Path) -> None:
        """Check rows before they are accepted; a batch that fails goes to quarantine, with reasons for bad rows.

        Args:
            rows: a Parquet file; rows with a reason in ``__reject`` are skipped.

        Raises:
            GateError: an expectation failed; no row of the batch was accepted.
        """
        suite = self.suites.get(view.name, ())
        if view.hash not in self.current:
            columns = {view.source.event_column, *(column.name for column in (*view.keys, *view.features))}
            # Without expectations about the set of columns, which each version of a view has its own.
            suite = [item for item in suite if not type(item).__name__.startswith("ExpectTableColumn")]
            suite = [item for item in suite if columns_of(item) <= columns]
        if not suite:
            return
        report = check_batch(view.name, _declared_columns(view, _acceptable_rows(rows)), self.connection, suite)
        if not report.success:
            # Read again with row numbers only after a failure: batches that pass, which are most, are read once.
            numbered = _declared_columns(view, _acceptable_rows(rows, f", {ROW} = true"))
            reasons = find_failed_rows(report, numbered, self.connection, suite)
            failed = [result.expected for result in report.results if result.fails_gate]
            quarantine(rows, self.state / "quarantine" / view.name, reasons, failed)
        report.raise_if_failed()

    def check_source(self, view: View) -> GateReport:
        """Check all published, acceptable rows of a view's source; nothing is changed."""
        table, query = self.published(view)
        suite = self.suites.get(view.name, ())
        with table.open(self.connection):
            return check_batch(view.name, query, self.connection, suite, table.parameters)

    def published(self, view: View) -> tuple[Table, str]:
        """Return the table of a view, and SQL for its published, acceptable rows, in the form that suites check.

        Bind the table's parameters to the SQL, while the table is open.
        """
        table = view_table(self.repo, view)
        types = table.column_types(self.connection)
        check_view(table.name, types, view)
        window = Window(after_us=None, upto_us=self.clock.now_us()).condition(view.delay_us)
        rows = f"(SELECT * FROM ({checked_rows_sql(view, types, table.relation)}) WHERE {REJECT} IS NULL AND {window})"
        return table, _declared_columns(view, rows)

    def check_labels(self, spec: ModelSpec, *, everything: bool = False, remember: bool = True) -> GateReport:
        """Check the rows of a model's label table that are known by now, with suite ``labels`` or ``labels:MODEL``.

        Args:
            everything: check all rows, not only new rows since the last check that passed.
            remember: store a passed check, so that the next check skips its rows.
        """
        suite = self.suites.get(f"{LABELS}:{spec.name}") or self.suites.get(LABELS, ())
        gate = LabelGate(repo=self.repo, state=self.state, connection=self.connection)
        resolved = self.resolve_labels(spec)
        return gate.check(resolved, suite, self.clock.now_us(), everything=everything, remember=remember)

    def resolve_labels(self, spec: ModelSpec) -> ModelSpec:
        """Return the spec with its labels as a table, also if they are outcomes."""
        if self.plan is None or not isinstance(spec.labels, Outcomes):
            return spec
        plan = self.plan.select_service(spec.service)
        log = LabelledLog(repo=self.repo, state=self.state, connection=self.connection, plan=plan, spec=spec)
        return resolve_labels(log, self.clock.now_us()).spec

    def bounds(self, plan: FeaturePlan, spec: ModelSpec) -> Bounds:
        """Return the bounds of a model's features and requests by the suites; ``plan`` is its pinned plan."""
        return compile_bounds(plan, spec, self.suites)

    def check_all(
        self,
        views: Sequence[View],
        models: Sequence[ModelSpec],
        names: Sequence[str] = (),
        *,
        everything: bool = False,
        remember: bool = False,
    ) -> list[GateReport]:
        """Check the sources of views and the label tables of models; all, or the named ones.

        Args:
            everything: also check labels that have passed before.
            remember: store passed label checks; otherwise nothing is changed.

        Raises:
            RequestError: a name is neither a view nor a model.
        """
        for name in names:
            check_known("name", name, sorted(self.known), problem="is neither a view nor a model")
        reports = [self.check_source(view) for view in views if not names or view.name in names]
        specs = [spec for spec in models if not names or spec.name in names]
        return reports + [self.check_labels(spec, everything=everything, remember=remember) for spec in specs]


def columns_of(expectation: Expectation) -> set[str]:
    """Return the columns that an expectation names."""
    names = {getattr(expectation, name, None) for name in ("column", "column_A", "column_B")}
    for name in ("column_list", "column_set"):
        names |= set(getattr(expectation, name, None) or ())
    return {name for name in names if isinstance(name, str)}


def _acceptable_rows(rows: Path, option: str = "") -> str:
    """Return SQL for the acceptable rows of a draft, read with an option."""
    return f"(SELECT * FROM read_parquet({sql_literal(str(rows))}{option}) WHERE {REJECT} IS NULL)"


def _declared_columns(view: View, rows: str) -> str:
    """Return SQL for rows in the plan's columns, with the event time under its original name."""
    columns = {column.name for column in (*view.keys, *view.features)}
    name = view.source.event_column
    extra = "" if name in columns else f", make_timestamptz({EVENT}) AS {quote(name)}"
    return f"SELECT *{extra} FROM {rows}"


def quarantine(rows: Path, folder: Path, reasons: Mapping[int, str], failed: Sequence[str] = ()) -> None:
    """Store a rejected batch as a Parquet file that is named by the hash of its content.

    So a batch that is rejected on every tick is stored once. Memory does not grow with the rows.

    Args:
        rows: a Parquet file; rows with a reason in ``__reject`` are skipped.
        folder: created if it does not exist.
        reasons: the reason for ``__reject`` by position in ``rows``; other rows are good rows of a bad batch.
        failed: the expectations that failed, which the file states with the numbers of rows by reason.
    """
    make_folder(folder)
    with remove_at_end(folder / f".{uuid.uuid4().hex}.tmp") as temporary:
        _copy(rows, temporary, reasons, failed)
        # The name is the content's hash, so a repeated rejection of the same rows replaces the same file.
        with temporary.open("rb") as file:
            name = file_digest(file, "sha256").hexdigest()[:16]
        temporary.replace(folder / f"{name}.parquet")


def _copy(rows: Path, target: Path, reasons: Mapping[int, str], failed: Sequence[str]) -> None:
    """Copy the checked rows without columns that a run adds, so that equal rows give equal bytes."""
    numbers = sorted(reasons)
    with pq.ParquetFile(rows, pre_buffer=False) as file:
        columns = [name for name in file.schema_arrow.names if name not in {SEQ, INGEST, RUN}]
        schema = pa.schema([file.schema_arrow.field(name) for name in columns], describe_rejection(reasons, failed))
        start = 0
        with pq.ParquetWriter(target, schema) as writer:
            for batch in file.iter_batches(columns=columns):
                stop = start + batch.num_rows
                in_batch = numbers[bisect_left(numbers, start) : bisect_left(numbers, stop)]
                batch_reasons = {number - start: reasons[number] for number in in_batch}
                writer.write_batch(_add_reasons(batch, batch_reasons))
                start = stop


def _add_reasons(batch: pa.RecordBatch, reasons: Mapping[int, str]) -> pa.RecordBatch:
    is_checked = pc.is_null(batch[REJECT])
    index = batch.schema.get_field_index(REJECT)
    values = pa.array([reasons.get(i) for i in range(batch.num_rows)], batch[REJECT].type)
    return batch.set_column(index, batch.schema.field(REJECT), values).filter(is_checked)
