"""The gates of one project: new rows before they are accepted, labels before they train, sources on request."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from infra.log.accepted import EVENT, INGEST, REJECT, RUN, SEQ
from infra.offline.changes import Window, judged_rows
from infra.offline.labels import find_labels, own_columns
from infra.offline.sources import check_columns, view_columns, view_table
from infra.offline.sql import quote
from skewless.clock import Clock
from skewless.errors import DefinitionError
from skewless.plan import View
from skewless.spec import ModelSpec
from validation.gate_report import GateReport
from validation.gates import Gate
from validation.suites import load_suites

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

LABELS = "labels"
EXPECTATIONS_FILE = "expectations.py"


@dataclass(frozen=True, kw_only=True)
class SourceChecks:
    """Runs the suites of a repo's ``expectations.py``.

    Args:
        known: names of the views and models: what a suite may be for.
    """

    repo: Path
    state: Path
    connection: duckdb.DuckDBPyConnection
    clock: Clock
    known: frozenset[str]
    gate: Gate = field(default_factory=Gate)

    @cached_property
    def suites(self) -> Mapping[str, Sequence[Expectation]]:
        """The suites by view name; none where the repo has no expectations.

        Raises:
            DefinitionError: a suite is for something that does not exist: its gate would never close.
        """
        if not (self.repo / EXPECTATIONS_FILE).exists():
            return {}
        suites = load_suites(self.repo)
        for name in suites:
            if name.removeprefix(f"{LABELS}:") not in self.known | {LABELS}:
                known = ", ".join(sorted(self.known | {LABELS}))
                raise DefinitionError(
                    f"suite in {EXPECTATIONS_FILE}", "is for nothing in the plan", value=name, fix=f"use one of {known}"
                )
        return suites

    def new_rows(self, view: View, rows: Path) -> None:
        """Check rows that are about to be accepted; a batch that fails goes to quarantine.

        Args:
            rows: a Parquet file; its rows that have a reason in ``__reject`` are left out.

        Raises:
            GateError: an expectation does not hold; nothing of the batch was accepted.
        """
        suite = self.suites.get(view.name)
        if not suite:
            return
        self.connection.read_parquet(str(rows)).create_view("new_rows")
        try:
            good = f"(SELECT * FROM new_rows WHERE {REJECT} IS NULL)"
            report = self.gate.check(view.name, _as_declared(view, good), self.connection, suite)
        finally:
            self.connection.execute("DROP VIEW IF EXISTS new_rows")
        if not report.success:
            self._quarantine(view, rows)
        report.raise_if_failed()

    def source(self, view: View) -> GateReport:
        """Check every published row of a view's source that could be accepted; nothing is changed."""
        table = view_table(self.repo, view)
        types = table.column_types(self.connection)
        check_columns(table, types, view_columns(view))
        window = Window(after_us=None, upto_us=self.clock.now_us()).condition(view.delay_us)
        rows = f"(SELECT * FROM ({judged_rows(view, types, table.relation)}) WHERE {REJECT} IS NULL AND {window})"
        query = _as_declared(view, rows)
        suite = self.suites.get(view.name, ())
        with table.opened(self.connection):
            return self.gate.check(view.name, query, self.connection, suite, table.parameters)

    def labels(self, spec: ModelSpec) -> GateReport:
        """Check what a model's label table said by now; the suite's key is ``labels``."""
        table = find_labels(self.repo, spec)
        check_columns(table, table.column_types(self.connection), own_columns(spec))
        labels = spec.labels
        published = f"coalesce({quote(labels.known_time)}, {quote(labels.event_time)})"
        now = f"make_timestamptz(CAST({self.clock.now_us()} AS BIGINT))"
        query = f"SELECT * FROM {table.relation} WHERE {published} <= {now}"
        name = f"{LABELS}:{spec.name}"
        suite = self.suites.get(name) or self.suites.get(LABELS, ())
        with table.opened(self.connection):
            return self.gate.check(name, query, self.connection, suite, table.parameters)

    def all(self, views: Sequence[View], models: Sequence[ModelSpec], names: Sequence[str] = ()) -> list[GateReport]:
        """Check the sources of views and the label tables of models, or those that are named.

        Raises:
            DefinitionError: a name is neither a view nor a model.
        """
        for name in names:
            if name not in self.known:
                known = ", ".join(sorted(self.known))
                raise DefinitionError("name", "is neither a view nor a model", value=name, fix=f"use one of {known}")
        reports = [self.source(view) for view in views if not names or view.name in names]
        return reports + [self.labels(spec) for spec in models if not names or spec.name in names]

    def _quarantine(self, view: View, rows: Path) -> None:
        folder = self.state / "quarantine" / view.name
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{uuid.uuid4().hex}.tmp"
        try:
            _copy_good(rows, temporary)
            # Named by its content, so that a batch refused on every tick is kept once.
            with temporary.open("rb") as file:
                name = file_digest(file, "sha256").hexdigest()[:16]
            temporary.replace(folder / f"{name}.parquet")
        finally:
            temporary.unlink(missing_ok=True)


def _copy_good(rows: Path, target: Path) -> None:
    """Copy what a gate has judged, without what a run adds: the same rows give the same bytes."""
    with pq.ParquetFile(rows, pre_buffer=False) as file:
        columns = [name for name in file.schema_arrow.names if name not in {SEQ, INGEST, RUN}]
        schema = pa.schema([file.schema_arrow.field(name) for name in columns])
        with pq.ParquetWriter(target, schema) as writer:
            for batch in file.iter_batches(columns=columns):
                writer.write_batch(batch.filter(batch[REJECT].is_null()))


def _as_declared(view: View, rows: str) -> str:
    """Return SQL for rows in the plan's columns, with the event time under its own name again."""
    taken = {column.name for column in (*view.keys, *view.features)}
    name = view.source.event_column
    extra = "" if name in taken else f", make_timestamptz({EVENT}) AS {quote(name)}"
    return f"SELECT *{extra} FROM {rows}"
