"""The gate for labels: checks new rows as they become known, and the complete table each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewless.contract.columns import digest
from skewless.contract.spec import ModelSpec
from skewless.infra.platform.storage.documents import Documents, Json
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.labels import find_labels, label_field_columns, label_source
from skewless.infra.reads.offline.source_columns import check_columns
from skewless.infra.reads.offline.sources import Table
from skewless.infra.reads.offline.sql import quote
from skewless.validation.gate_report import ExpectationResult, GateReport
from skewless.validation.gates import check_batch
from skewless.validation.suites import LABELS

if TYPE_CHECKING:
    import duckdb
    from great_expectations.expectations.expectation import Expectation

_ALL_ROWS = 1.0
_UNIQUENESS = frozenset({"expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique"})
LabelQuery = tuple[str, list[Any]]


@dataclass(frozen=True, kw_only=True)
class LabelCheck:
    """The last check of a label table that passed.

    Args:
        upto_us: rows known by then were checked, UTC microseconds.
        files: fingerprints of the table's files at that time.
        suite: identity of the suite and the label columns.
    """

    upto_us: int
    files: Mapping[str, str]
    suite: str


@dataclass(frozen=True, kw_only=True)
class LabelGate:
    """Checks the label tables of a project's models.

    Expectations about single rows are checked on rows that became known since the last passed check, and on all rows
    of files that changed since. Expectations about the table (a mean, a count, uniqueness, a share with ``mostly``) are
    checked on the complete table.
    """

    repo: Path
    state: ProjectState
    connection: duckdb.DuckDBPyConnection

    def check(
        self, spec: ModelSpec, suite: Sequence[Expectation], now_us: int, *, everything: bool, remember: bool = True
    ) -> GateReport:
        """Check the rows of a model's label table that are known by ``now_us``.

        Args:
            everything: check all rows, also rows that have passed before.
            remember: store a passed check, so that the next check skips its rows.
        """
        table = find_labels(self.repo, spec)
        check_columns(table.name, table.column_types(self.connection), label_field_columns(spec))
        name = f"{LABELS}:{spec.name}"
        # Fingerprints are taken before the rows are read, so a file that changes meanwhile is checked again.
        current = LabelCheck(upto_us=now_us, files=table.fingerprints(), suite=_identity(spec, suite))
        passed = Documents(self.state.database, "passed_labels")
        last = None if everything else _decode_check(passed.get(spec.name))
        with table.open(self.connection):
            # After a clock was set back, rows of the future would count as checked.
            if last is None or last.suite != current.suite or last.upto_us > now_us:
                report = self._check(name, known_labels(spec, table, now_us), suite)
            else:
                report = self._check_new(spec, table, suite, last, current)
            report = replace(report, not_yet_known=self._count_unknown(spec, table, now_us))
        # A failed check is not stored, so the next one reads the same rows again.
        if report.success and suite and remember:
            passed.put(spec.name, asdict(current))
        return report

    def _check_new(
        self, spec: ModelSpec, table: Table, suite: Sequence[Expectation], last: LabelCheck, current: LabelCheck
    ) -> GateReport:
        name, now_us = f"{LABELS}:{spec.name}", current.upto_us
        row_level = [item for item in suite if is_row_level(item)]
        table_level = [item for item in suite if not is_row_level(item)]
        changed, unchanged = table.split(
            [file for file, fingerprint in current.files.items() if last.files.get(file) != fingerprint]
        )
        parts = [
            known_labels(spec, part, now_us, after)
            for part, after in ((changed, None), (unchanged, last.upto_us))
            if part
        ]
        # Changed files are checked completely, unchanged files only from the last check on.
        query = " UNION ALL BY NAME ".join(sql for sql, _ in parts)
        row_report = self._check(name, (query, [value for _, bound in parts for value in bound]), row_level)
        table_report = self._check(name, known_labels(spec, table, now_us), table_level) if table_level else None
        return GateReport(
            name=name,
            n_rows=row_report.n_rows,
            seconds=row_report.seconds + (table_report.seconds if table_report else 0.0),
            results=_in_order(suite, row_report.results, table_report.results if table_report else ()),
            since_us=last.upto_us,
        )

    def _count_unknown(self, spec: ModelSpec, table: Table, now_us: int) -> int:
        query = f"SELECT count(*) FROM {table.relation} WHERE {_published(spec)} > {_timestamp_sql(now_us)}"
        row = self.connection.execute(query, table.parameters).fetchone()
        return int(row[0]) if row else 0

    def _check(self, name: str, query: LabelQuery, suite: Sequence[Expectation]) -> GateReport:
        return check_batch(name, query[0], self.connection, suite, query[1])


def _decode_check(body: Json | None) -> LabelCheck | None:
    """Return a passed check; None: there is none, or another release wrote it."""
    try:
        return None if body is None else LabelCheck(**body)
    except TypeError:
        return None


def known_labels(spec: ModelSpec, table: Table, upto_us: int, after_us: int | None = None) -> LabelQuery:
    """Return SQL for the rows of a table that became known in ``(after_us, upto_us]``, and its parameters."""
    published = _published(spec)
    since = "" if after_us is None else f" AND {published} > {_timestamp_sql(after_us)}"
    return f"SELECT * FROM {table.relation} WHERE {published} <= {_timestamp_sql(upto_us)}{since}", table.parameters


def _published(spec: ModelSpec) -> str:
    labels = label_source(spec)
    return f"coalesce({quote(labels.known_time)}, {quote(labels.event_time)})"


def _timestamp_sql(us: int) -> str:
    return f"make_timestamptz(CAST({us} AS BIGINT))"


def _identity(spec: ModelSpec, suite: Sequence[Expectation]) -> str:
    # Rows that passed another suite, or under other column names, have not passed this one.
    demands = [str(item.configuration.to_json_dict()) for item in suite]
    return digest([spec.as_dict()["labels"], demands])


def _in_order(
    suite: Sequence[Expectation], row_level: Sequence[ExpectationResult], table_level: Sequence[ExpectationResult]
) -> tuple[ExpectationResult, ...]:
    """Return row-level and table-level results in the order of the suite."""
    row_results, table_results = iter(row_level), iter(table_level)
    return tuple(next(row_results) if is_row_level(item) else next(table_results) for item in suite)


def is_row_level(expectation: Expectation) -> bool:
    """Return whether an expectation about a table is equivalent to the same expectation about each of its rows.

    A share of the rows (``mostly``) and uniqueness depend on the table.
    """
    from great_expectations.expectations.expectation import (  # noqa: PLC0415 - seconds; only where there is a suite
        ColumnMapExpectation,
        ColumnPairMapExpectation,
        MulticolumnMapExpectation,
    )

    is_about_rows = isinstance(expectation, ColumnMapExpectation | ColumnPairMapExpectation | MulticolumnMapExpectation)
    applies_to_all = expectation.configuration.kwargs.get("mostly", _ALL_ROWS) == _ALL_ROWS
    return is_about_rows and applies_to_all and expectation.expectation_type not in _UNIQUENESS
