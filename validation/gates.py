"""Data gates: rows are accepted or used for training only if they pass their suite.

Suites run on rows in DuckDB; only samples of rows leave DuckDB.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import duckdb

from skewless.contract.errors import SourceError
from skewless.validation.gate_report import COLUMN_KEYS, ExpectationResult, GateReport

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.expectations.expectation import Expectation


ROW = "file_row_number"
FailedRows = dict[int, str]


def check_batch(
    name: str,
    query: str,
    connection: duckdb.DuckDBPyConnection,
    suite: Sequence[Expectation],
    params: Sequence[object] = (),
    *,
    sample: int = 10,
) -> GateReport:
    """Return the report of ``suite`` on the rows of ``query``.

    Every expectation is first evaluated only for its verdict; failed expectations again, for counts and samples.
    On an empty batch an expectation about a column passes if the column exists.

    Without ``params`` the query becomes a temporary view (read once for each kind of expectation); with them a
    temporary table, because a view cannot have bound values. Both are dropped at the end. The connection's
    transaction, settings and other objects are unchanged.

    Args:
        name: the view's name, or ``labels``.
        query: a SELECT, or ``FROM table``.
        connection: the connection of the query; no other thread may use it meanwhile.
        suite: expectations of Great Expectations.
        params: values bound to the query.
        sample: number of unexpected values that a failed expectation shows.

    Raises:
        SourceError: the query itself cannot be run.
    """
    start = time.perf_counter()
    with _relation(name, query, connection, params) as (table, n_rows):
        results = _evaluate(connection, table, suite, sample) if suite else ()
        results = results if n_rows else tuple(map(_pass_empty_column, results))
    return GateReport(name=name, n_rows=n_rows, seconds=time.perf_counter() - start, results=results)


def find_failed_rows(
    report: GateReport, query: str, connection: duckdb.DuckDBPyConnection, suite: Sequence[Expectation]
) -> FailedRows:
    """Return the rows that violate critical expectations about single rows, each with the expectations.

    Args:
        report: the report of the same query and suite.
        query: its rows have a unique integer ``ROW``.
    """
    from skewless.validation.duckdb_engine import ExpectationEvaluator  # noqa: PLC0415 - as in _evaluate

    failures = [
        (item, result.expected)
        for item, result in zip(suite, report.results, strict=True)
        # An expectation that could not be evaluated has no bad rows to name.
        if result.fails_gate and result.error is None
    ]
    reasons_by_row: dict[int, list[str]] = {}
    with _relation(report.name, query, connection, ()) as (table, _):
        with closing(ExpectationEvaluator(connection, table)) as evaluator:
            queries = evaluator.queries([item for item, _ in failures], ROW)
        for (_, reason), row_query in zip(failures, queries, strict=True):
            for row in _row_numbers(connection, row_query):
                reasons_by_row.setdefault(row, []).append(reason)
    return {row: "; ".join(reasons) for row, reasons in sorted(reasons_by_row.items())}


def _row_numbers(connection: duckdb.DuckDBPyConnection, query: str | None) -> list[int]:
    """Return the row numbers of a query of Great Expectations; empty if the query is not valid SQL."""
    if query is None:
        return []
    try:
        return [number for (number,) in connection.execute(f"SELECT DISTINCT {ROW} FROM ({query})").fetchall()]
    except duckdb.BinderException:
        return []


@contextmanager
def _relation(
    name: str, query: str, connection: duckdb.DuckDBPyConnection, params: Sequence[object]
) -> Iterator[tuple[str, int]]:
    """Yield the name of a temporary view or table of the query, and its number of rows."""
    # A random name: the connection is the caller's, and may have tables of any name.
    kind, table = "TABLE" if params else "VIEW", f"gate_{secrets.token_hex(8)}"
    try:
        try:
            connection.execute(f"CREATE TEMPORARY {kind} {table} AS {query}", list(params))
            # Counting runs the query: a broken source fails here with its own error, and not as an error of each
            # expectation.
            n_rows = connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
        except duckdb.Error as error:
            first_line = str(error).split("\n", 1)[0]
            fix = "check the source of this batch"
            raise SourceError(f"batch {name!r}", f"cannot be read: {first_line}", fix=fix) from error
        yield table, int(n_rows)
    finally:
        # A failed query in the caller's transaction aborts it, which also removes the view or table.
        with suppress(duckdb.TransactionException):
            connection.execute(f"DROP {kind} IF EXISTS {table}")


def _evaluate(
    connection: duckdb.DuckDBPyConnection, table: str, suite: Sequence[Expectation], sample: int
) -> tuple[ExpectationResult, ...]:
    from skewless.validation.duckdb_engine import ExpectationEvaluator  # noqa: PLC0415 - takes seconds; only with a suite

    with closing(ExpectationEvaluator(connection, table)) as evaluator:
        verdicts = evaluator.evaluate(suite, detail="BOOLEAN_ONLY")
        failed = [index for index, verdict in enumerate(verdicts) if not (verdict.success or _has_error(verdict))]
        if failed:
            details = evaluator.evaluate([suite[index] for index in failed], detail="SUMMARY", sample=sample)
            for index, detail in zip(failed, details, strict=True):
                # The first verdict stays unless the second adds details: looking again must never let a failed batch
                # pass.
                verdicts[index] = verdicts[index] if detail.success or _has_error(detail) else detail
    return tuple(_result(verdict) for verdict in verdicts)


def _result(verdict: ExpectationValidationResult) -> ExpectationResult:
    plain = cast("dict[str, Any]", verdict.to_json_dict())
    config, observation = plain["expectation_config"], plain["result"]
    return ExpectationResult(
        expectation=config["type"],
        column=_column(config["kwargs"]),
        success=bool(plain["success"]),
        severity=config.get("severity", "critical"),
        kwargs=config["kwargs"],
        unexpected_count=observation.get("unexpected_count"),
        unexpected_percent=observation.get("unexpected_percent"),
        observed=observation.get("observed_value"),
        sample=tuple(observation.get("partial_unexpected_list") or ()),
        error=_error(plain["exception_info"]),
    )


def _pass_empty_column(result: ExpectationResult) -> ExpectationResult:
    """Let an expectation about a column pass for an empty batch; GE fails for its mean, minimum and so on."""
    return replace(result, success=True) if result.column is not None and result.error is None else result


def _column(kwargs: dict[str, Any]) -> str | None:
    columns = [kwargs[key] for key in COLUMN_KEYS if key in kwargs]
    names = [name for item in columns for name in ([item] if isinstance(item, str) else item)]
    return ", ".join(names) or None


def _has_error(verdict: ExpectationValidationResult) -> bool:
    return _error(verdict.exception_info or {}) is not None


def _error(info: dict[str, Any]) -> str | None:
    """Return the first line of the raised error; GE reports it directly, or once per metric."""
    each = [info] if "raised_exception" in info else list(info.values())
    messages = [str(item["exception_message"]) for item in each if item.get("raised_exception")]
    return messages[0].split("\n", 1)[0] if messages else None
