"""The gate before training: labels are judged row by row as they become known, and as a whole each time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewless.contract.columns import digest
from skewless.contract.spec import ModelSpec
from skewless.infra.offline.labels import find_labels, label_field_columns
from skewless.infra.offline.source_columns import check_columns
from skewless.infra.offline.sources import Table
from skewless.infra.offline.sql import quote
from skewless.infra.storage.durable import replace_durable
from skewless.validation.gate_report import ExpectationResult, GateReport
from skewless.validation.gates import DataGate
from skewless.validation.suites import LABELS

if TYPE_CHECKING:
    import duckdb
    from great_expectations.expectations.expectation import Expectation

_ALL = 1.0
_AMONG_ROWS = frozenset({"expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique"})
LabelQuery = tuple[str, list[Any]]


@dataclass(frozen=True, kw_only=True)
class LabelCheck:
    """The last check of a label table that passed.

    Args:
        upto_us: rows known by then were judged, UTC microseconds.
        files: fingerprints of the table's files at that time.
        suite: identity of what was demanded of which columns.
    """

    upto_us: int
    files: Mapping[str, str]
    suite: str

    def covers(self, suite: str, now_us: int) -> bool:
        """Say whether it tells anything about a check of ``suite`` at a time."""
        return self.suite == suite and self.upto_us <= now_us

    def changed(self, files: Mapping[str, str]) -> list[str]:
        """Return the files that are new, or not what they were."""
        return [file for file, fingerprint in files.items() if self.files.get(file) != fingerprint]


@dataclass(frozen=True, kw_only=True)
class LabelGate:
    """Checks the label tables of a project's models.

    What is demanded of each row alone is demanded of rows that became known since the last check that passed, and of
    every row of files that changed since; what is said of the whole table (a mean, a count, uniqueness, a share with
    ``mostly``) is judged on the whole table.
    """

    repo: Path
    state: Path
    connection: duckdb.DuckDBPyConnection
    gate: DataGate

    def check(
        self, spec: ModelSpec, suite: Sequence[Expectation], now_us: int, *, everything: bool, remember: bool = True
    ) -> GateReport:
        """Check what a model's label table said by ``now_us``.

        Args:
            everything: judge every row, whatever passed before.
            remember: if it passes, the next check judges only what is new since.
        """
        table = find_labels(self.repo, spec)
        check_columns(table.name, table.column_types(self.connection), label_field_columns(spec))
        name = f"{LABELS}:{spec.name}"
        # Taken before the rows are read: a file that changes meanwhile is judged again.
        done = LabelCheck(upto_us=now_us, files=table.fingerprints(), suite=_identity(spec, suite))
        kept = self.state / "validation" / f"labels-{spec.name}.json"
        before = None if everything else _read_check(kept)
        with table.open(self.connection):
            if before is None or not before.covers(done.suite, now_us):
                report = self._judge(name, known_labels(spec, table, now_us), suite)
            else:
                report = self._judge_new(spec, table, suite, before, done)
        if report.success and suite and remember:
            replace_durable(kept, json.dumps(asdict(done)).encode())
        return report

    def _judge_new(
        self, spec: ModelSpec, table: Table, suite: Sequence[Expectation], before: LabelCheck, done: LabelCheck
    ) -> GateReport:
        name, now_us = f"{LABELS}:{spec.name}", done.upto_us
        single = [item for item in suite if is_row_level(item)]
        rest = [item for item in suite if not is_row_level(item)]
        changed, same = table.split(before.changed(done.files))
        parts = [
            known_labels(spec, part, now_us, after) for part, after in ((changed, None), (same, before.upto_us)) if part
        ]
        query = " UNION ALL BY NAME ".join(sql for sql, _ in parts)
        new = self._judge(name, (query, [value for _, bound in parts for value in bound]), single)
        whole = self._judge(name, known_labels(spec, table, now_us), rest) if rest else None
        return GateReport(
            name=name,
            n_rows=new.n_rows,
            seconds=new.seconds + (whole.seconds if whole else 0.0),
            results=_in_order(suite, new.results, whole.results if whole else ()),
            since_us=before.upto_us,
        )

    def _judge(self, name: str, query: LabelQuery, suite: Sequence[Expectation]) -> GateReport:
        return self.gate.check(name, query[0], self.connection, suite, query[1])


def _read_check(path: Path) -> LabelCheck | None:
    """Return the last check that passed; None: there was none, or its file tells nothing."""
    try:
        return LabelCheck(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def known_labels(spec: ModelSpec, table: Table, upto_us: int, after_us: int | None = None) -> LabelQuery:
    """Return SQL for the rows of a table that became known after one moment and by another, and its parameters."""
    labels = spec.labels
    published = f"coalesce({quote(labels.known_time)}, {quote(labels.event_time)})"
    since = "" if after_us is None else f" AND {published} > {_moment(after_us)}"
    return f"SELECT * FROM {table.relation} WHERE {published} <= {_moment(upto_us)}{since}", table.parameters


def _moment(us: int) -> str:
    return f"make_timestamptz(CAST({us} AS BIGINT))"


def _identity(spec: ModelSpec, suite: Sequence[Expectation]) -> str:
    demands = [str(item.configuration.to_json_dict()) for item in suite]
    return digest([spec.as_dict()["labels"], demands])


def _in_order(
    suite: Sequence[Expectation], single: Sequence[ExpectationResult], rest: Sequence[ExpectationResult]
) -> tuple[ExpectationResult, ...]:
    """Return results of both kinds in the order of the suite."""
    ones, others = iter(single), iter(rest)
    return tuple(next(ones) if is_row_level(item) else next(others) for item in suite)


def is_row_level(expectation: Expectation) -> bool:
    """Say whether an expectation holds of a table exactly if it holds of each of its rows.

    A share of the rows (``mostly``) and uniqueness are of the table.
    """
    from great_expectations.expectations.expectation import (  # noqa: PLC0415 - seconds; only where there is a suite
        ColumnMapExpectation,
        ColumnPairMapExpectation,
        MulticolumnMapExpectation,
    )

    of_rows = isinstance(expectation, ColumnMapExpectation | ColumnPairMapExpectation | MulticolumnMapExpectation)
    every = expectation.configuration.kwargs.get("mostly", _ALL) == _ALL
    return of_rows and every and expectation.expectation_type not in _AMONG_ROWS
