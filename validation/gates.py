"""Data gates: no rows pass to the store or to training unless their suite holds."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import duckdb

from skewless.contract.errors import SourceError
from skewless.validation.gate_report import COLUMN_KEYS, ExpectationResult, GateReport

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.expectations.expectation import Expectation


ROW = "file_row_number"
FailedRows = dict[int, str]


@dataclass(frozen=True, kw_only=True)
class DataGate:
    """Runs suites on rows that DuckDB can see; the rows never leave DuckDB, samples excepted.

    Args:
        sample: how many unexpected values a failed expectation shows.
    """

    sample: int = 10

    def check(
        self,
        name: str,
        query: str,
        connection: duckdb.DuckDBPyConnection,
        suite: Sequence[Expectation],
        params: Sequence[object] = (),
    ) -> GateReport:
        """Return the verdict of ``suite`` on the rows of ``query``.

        Every expectation is first evaluated for its verdict alone; only the failed ones again, for counts and samples.
        On an empty batch an expectation about a column holds, if the column is there.

        Without ``params`` the query becomes a temporary view (read once for each kind of expectation); with them a
        temporary table, as a view cannot hold bound values. Both are dropped again; the connection's transaction,
        settings and other objects are left alone.

        Args:
            name: the view's name, or ``labels``.
            query: a SELECT, or ``FROM table``.
            connection: where the query means something; not used by another thread meanwhile.
            suite: expectations of Great Expectations.
            params: values bound to the query.

        Raises:
            SourceError: the query itself cannot be run.
        """
        start = time.perf_counter()
        with _relation(name, query, connection, params) as (table, n_rows):
            results = _evaluate(connection, table, suite, self.sample) if suite else ()
            results = results if n_rows else tuple(map(_vacuous, results))
        return GateReport(name=name, n_rows=n_rows, seconds=time.perf_counter() - start, results=results)

    def failed_rows(
        self, report: GateReport, query: str, connection: duckdb.DuckDBPyConnection, suite: Sequence[Expectation]
    ) -> FailedRows:
        """Return which rows of a batch broke expectations that speak of single rows, and closed the gate.

        Args:
            report: of the same query and suite.
            query: its rows have the whole number ``ROW`` to tell them apart.
        """
        from skewless.validation.duckdb_engine import ExpectationEvaluator  # noqa: PLC0415 - as in _evaluate

        broken_by = [
            (item, result.expected)
            for item, result in zip(suite, report.results, strict=True)
            if result.closes and result.error is None
        ]
        found: dict[int, list[str]] = {}
        with _relation(report.name, query, connection, ()) as (table, _):
            with closing(ExpectationEvaluator(connection, table)) as evaluator:
                queries = evaluator.queries([item for item, _ in broken_by], ROW)
            for (_, reason), broken in zip(broken_by, queries, strict=True):
                for row in _numbers(connection, broken):
                    found.setdefault(row, []).append(reason)
        return {row: "; ".join(reasons) for row, reasons in sorted(found.items())}


def _numbers(connection: duckdb.DuckDBPyConnection, query: str | None) -> list[int]:
    """Return the numbers of the rows that a query of Great Expectations finds; some of its queries are no SQL."""
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
    """Yield the name of a temporary view or table over the query, and its number of rows."""
    kind, table = "TABLE" if params else "VIEW", f"gate_{secrets.token_hex(8)}"
    try:
        connection.execute(f"CREATE TEMPORARY {kind} {table} AS {query}", list(params))
    except duckdb.Error as error:
        raise _broken(name, error) from error
    try:
        yield table, _count(name, table, connection)
    finally:
        # A query that failed inside the caller's transaction has ended it, and our object with it.
        with suppress(duckdb.TransactionException):
            connection.execute(f"DROP {kind} IF EXISTS {table}")


def _count(name: str, table: str, connection: duckdb.DuckDBPyConnection) -> int:
    try:
        rows = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    except duckdb.Error as error:
        raise _broken(name, error) from error
    return int(rows[0][0])


def _broken(name: str, error: duckdb.Error) -> SourceError:
    first_line = str(error).split("\n", 1)[0]
    return SourceError(f"batch {name!r}", f"cannot be read: {first_line}", fix="check the source of this batch")


def _evaluate(
    connection: duckdb.DuckDBPyConnection, table: str, suite: Sequence[Expectation], sample: int
) -> tuple[ExpectationResult, ...]:
    from skewless.validation.duckdb_engine import ExpectationEvaluator  # noqa: PLC0415 - seconds; only where there is a suite

    with closing(ExpectationEvaluator(connection, table)) as evaluator:
        verdicts = evaluator.evaluate(suite, detail="BOOLEAN_ONLY")
        failed = [at for at, verdict in enumerate(verdicts) if not (verdict.success or _raised(verdict))]
        if failed:
            details = evaluator.evaluate([suite[at] for at in failed], detail="SUMMARY", sample=sample)
            for at, detail in zip(failed, details, strict=True):
                verdicts[at] = verdicts[at] if detail.success or _raised(detail) else detail
    return tuple(_result(verdict) for verdict in verdicts)


def _result(verdict: ExpectationValidationResult) -> ExpectationResult:
    plain = cast("dict[str, Any]", verdict.to_json_dict())
    config, seen = plain["expectation_config"], plain["result"]
    return ExpectationResult(
        expectation=config["type"],
        column=_column(config["kwargs"]),
        success=bool(plain["success"]),
        severity=config.get("severity", "critical"),
        kwargs=config["kwargs"],
        unexpected_count=seen.get("unexpected_count"),
        unexpected_percent=seen.get("unexpected_percent"),
        observed=seen.get("observed_value"),
        sample=tuple(seen.get("partial_unexpected_list") or ()),
        error=_error(plain["exception_info"]),
    )


def _vacuous(result: ExpectationResult) -> ExpectationResult:
    """What is said of a column's values holds of no values; GE refuses their mean, minimum and the like."""
    return replace(result, success=True) if result.column is not None and result.error is None else result


def _column(kwargs: dict[str, Any]) -> str | None:
    found = [kwargs[key] for key in COLUMN_KEYS if key in kwargs]
    names = [name for item in found for name in ([item] if isinstance(item, str) else item)]
    return ", ".join(names) or None


def _raised(verdict: ExpectationValidationResult) -> bool:
    return _error(verdict.exception_info or {}) is not None


def _error(info: dict[str, Any]) -> str | None:
    """Return the first line of what was raised; GE gives it directly, or once for each metric."""
    each = [info] if "raised_exception" in info else list(info.values())
    messages = [str(item["exception_message"]) for item in each if item.get("raised_exception")]
    return messages[0].split("\n", 1)[0] if messages else None
