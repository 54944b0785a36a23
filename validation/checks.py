"""The gates of one project: new rows before they are accepted, labels before they train, sources on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.contract.bounds import Bounds
from skewless.contract.clock import Clock
from skewless.contract.errors import DefinitionError
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.spec import ModelSpec
from skewless.infra.log.accepted import EVENT, REJECT
from skewless.infra.offline.changes import Window, checked_rows_sql
from skewless.infra.offline.source_columns import check_view
from skewless.infra.offline.sources import Table, view_table
from skewless.infra.offline.sql import quote, sql_literal
from skewless.validation.bounds import compile_bounds
from skewless.validation.gate_report import GateReport
from skewless.validation.gates import ROW, DataGate
from skewless.validation.label_gate import LabelGate
from skewless.validation.quarantine import quarantine
from skewless.validation.suites import FILE, LABELS, load_suites

if TYPE_CHECKING:
    import duckdb
    from great_expectations.expectations.expectation import Expectation


@dataclass(frozen=True, kw_only=True)
class SourceChecks:
    """Runs the suites of a repo's ``expectations.py``.

    Args:
        known: names of the views and models: what a suite may be for.
        current: hashes of the views in force. Of another version of a view only that is checked which is about the
            columns that it has.
    """

    repo: Path
    state: Path
    connection: duckdb.DuckDBPyConnection
    clock: Clock
    known: frozenset[str]
    current: frozenset[str] = frozenset()
    gate: DataGate = field(default_factory=DataGate)

    @cached_property
    def suites(self) -> Mapping[str, Sequence[Expectation]]:
        """The suites by view name; none where the repo has no expectations.

        Raises:
            DefinitionError: a suite is for something that does not exist: its gate would never close.
        """
        suites = load_suites(self.repo)
        for name in suites:
            if name.removeprefix(f"{LABELS}:") not in self.known | {LABELS}:
                known = ", ".join(sorted(self.known | {LABELS}))
                raise DefinitionError(
                    f"suite in {FILE}", "is for nothing in the plan", value=name, fix=f"use one of {known}"
                )
        return suites

    def new_rows(self, view: View, rows: Path) -> None:
        """Check rows that are about to be accepted; a batch that fails goes to quarantine, bad rows with reasons.

        Args:
            rows: a Parquet file; its rows that have a reason in ``__reject`` are left out.

        Raises:
            GateError: an expectation does not hold; nothing of the batch was accepted.
        """
        suite = self.suites.get(view.name, ())
        if view.hash not in self.current:
            columns = {view.source.event_column, *(column.name for column in (*view.keys, *view.features))}
            suite = [item for item in suite if not is_about_shape(item) and columns_of(item) <= columns]
        if not suite:
            return
        report = self.gate.check(view.name, _as_declared(view, _good(rows)), self.connection, suite)
        if not report.success:
            numbered = _as_declared(view, _good(rows, f", {ROW} = true"))
            reasons = self.gate.failed_rows(report, numbered, self.connection, suite)
            quarantine(rows, self.state / "quarantine" / view.name, reasons)
        report.raise_if_failed()

    def source(self, view: View) -> GateReport:
        """Check every published row of a view's source that could be accepted; nothing is changed."""
        table, query = self.published(view)
        suite = self.suites.get(view.name, ())
        with table.open(self.connection):
            return self.gate.check(view.name, query, self.connection, suite, table.parameters)

    def published(self, view: View) -> tuple[Table, str]:
        """Return the table behind a view, and SQL for its published rows that could be accepted, as suites see them.

        Bind the table's parameters to it, while the table is opened.
        """
        table = view_table(self.repo, view)
        types = table.column_types(self.connection)
        check_view(table.name, types, view)
        window = Window(after_us=None, upto_us=self.clock.now_us()).condition(view.delay_us)
        rows = f"(SELECT * FROM ({checked_rows_sql(view, types, table.relation)}) WHERE {REJECT} IS NULL AND {window})"
        return table, _as_declared(view, rows)

    def labels(self, spec: ModelSpec, *, everything: bool = False, remember: bool = True) -> GateReport:
        """Check what a model's label table said by now; the suite's key is ``labels``, or ``labels:MODEL``.

        Args:
            everything: judge every row again, not only what is new since the last check that passed.
            remember: if it passes, the next check judges only what is new since.
        """
        suite = self.suites.get(f"{LABELS}:{spec.name}") or self.suites.get(LABELS, ())
        gate = LabelGate(repo=self.repo, state=self.state, connection=self.connection, gate=self.gate)
        return gate.check(spec, suite, self.clock.now_us(), everything=everything, remember=remember)

    def bounds(self, plan: FeaturePlan, spec: ModelSpec) -> Bounds:
        """Return what the suites demand of every value of a model's features and requests; ``plan``: what it pins."""
        return compile_bounds(plan, spec, self.suites)

    def all(
        self,
        views: Sequence[View],
        models: Sequence[ModelSpec],
        names: Sequence[str] = (),
        *,
        everything: bool = False,
        remember: bool = False,
    ) -> list[GateReport]:
        """Check the sources of views and the label tables of models, or those that are named.

        Args:
            everything: judge labels that passed before again.
            remember: which labels pass; else nothing is changed.

        Raises:
            RequestError: a name is neither a view nor a model.
        """
        for name in names:
            check_known("name", name, sorted(self.known), problem="is neither a view nor a model")
        reports = [self.source(view) for view in views if not names or view.name in names]
        chosen = [spec for spec in models if not names or spec.name in names]
        return reports + [self.labels(spec, everything=everything, remember=remember) for spec in chosen]


def is_about_shape(expectation: Expectation) -> bool:
    """Say whether an expectation is about which columns there are: each version of a view has its own."""
    return type(expectation).__name__.startswith("ExpectTableColumn")


def columns_of(expectation: Expectation) -> set[str]:
    """Return the columns that an expectation is about."""
    named = {getattr(expectation, name, None) for name in ("column", "column_A", "column_B")}
    for name in ("column_list", "column_set"):
        named |= set(getattr(expectation, name, None) or ())
    return {name for name in named if isinstance(name, str)}


def _good(rows: Path, option: str = "") -> str:
    """Return SQL for the rows of a draft that can be accepted, read with an option."""
    return f"(SELECT * FROM read_parquet({sql_literal(str(rows))}{option}) WHERE {REJECT} IS NULL)"


def _as_declared(view: View, rows: str) -> str:
    """Return SQL for rows in the plan's columns, with the event time under its own name again."""
    taken = {column.name for column in (*view.keys, *view.features)}
    name = view.source.event_column
    extra = "" if name in taken else f", make_timestamptz({EVENT}) AS {quote(name)}"
    return f"SELECT *{extra} FROM {rows}"
