"""Great Expectations on a DuckDB connection of ours, with nothing between but SQL.

Written for Great Expectations 1.24: no data context, data source or batch definition is made (each costs time,
state or a second connection); an execution engine and a validator are enough. Three things are corrected:

* GE closes the connection after each query and reads the result afterwards, which DuckDB refuses; for SQLite and
  others it keeps one connection, and so do we (``get_connection``).
* SQLAlchemy wants to begin, roll back and close; the connection is the caller's, with its transaction, temporary
  views and registered Arrow tables, so those calls do nothing.
* GE does not know how DuckDB spells a regular expression (``regexp_matches``) or LIKE; Dremio spells both the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import duckdb
import sqlalchemy
from duckdb_sqlalchemy import ConnectionWrapper
from great_expectations.core.batch import Batch
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.execution_engine import SqlAlchemyExecutionEngine
from great_expectations.execution_engine.sqlalchemy_batch_data import SqlAlchemyBatchData
from great_expectations.expectations.expectation import Expectation
from great_expectations.validator.validator import Validator


class BorrowedConnection(ConnectionWrapper):
    """A DuckDB connection whose transaction and life belong to somebody else."""

    def begin(self) -> None:
        """Leave the caller's transaction as it is."""

    def commit(self) -> None:
        """Leave the caller's transaction as it is."""

    def rollback(self) -> None:
        """Leave the caller's transaction as it is."""

    def close(self) -> None:
        """Leave the caller's connection open."""


class DuckDBExecutionEngine(SqlAlchemyExecutionEngine):
    """GE's SQL engine on one borrowed DuckDB connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Borrow ``connection`` until ``close``."""
        engine = sqlalchemy.create_engine(
            "duckdb://", creator=lambda: BorrowedConnection(connection), poolclass=sqlalchemy.StaticPool
        )
        vars(engine.dialect)["DremioDialect"] = True
        super().__init__(engine=engine, create_temp_table=False)

    @contextmanager
    def get_connection(self) -> Iterator[sqlalchemy.Connection]:
        """Yield the one connection, which stays open until ``close``."""
        if self._connection is None:
            self._connection = self.engine.connect()
        yield self._connection


class QuietValidator(Validator):
    """GE's validator without progress bars."""

    def _determine_progress_bars(self) -> bool:
        return False


class ExpectationEvaluator:
    """Evaluates expectations on one table or view of a DuckDB connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: str) -> None:
        """Prepare to evaluate on ``table``, a plain identifier that ``connection`` can see."""
        self._engine = DuckDBExecutionEngine(connection)
        data = SqlAlchemyBatchData(execution_engine=self._engine, table_name=table, create_temp_table=False)
        self._validator = QuietValidator(execution_engine=self._engine, batches=[Batch(data=cast("Any", data))])

    def evaluate(
        self, suite: Sequence[Expectation], *, detail: str, sample: int = 0
    ) -> list[ExpectationValidationResult]:
        """Return one result for each expectation, in order.

        Args:
            suite: the expectations.
            detail: GE's result format, ``BOOLEAN_ONLY`` (cheapest) to ``SUMMARY`` (with counts and samples).
            sample: how many unexpected values to bring along.
        """
        return self._validated(suite, {"result_format": detail, "partial_unexpected_count": sample})

    def queries(self, suite: Sequence[Expectation], row: str) -> list[str | None]:
        """Return SQL for the rows that break each expectation, their column ``row`` first; None: it is not of rows.

        Args:
            suite: expectations that do not hold.
            row: a column that tells rows apart.
        """
        wanted = {
            "result_format": "BOOLEAN_ONLY",
            "unexpected_index_column_names": [row],
            "return_unexpected_index_query": True,
        }
        found = [result.result.get("unexpected_index_query") for result in self._validated(suite, wanted)]
        return [None if query is None else query.rstrip().removesuffix(";") for query in found]

    def close(self) -> None:
        """Let go of the connection, which stays open."""
        self._engine.close()

    def _validated(self, suite: Sequence[Expectation], wanted: dict[str, Any]) -> list[ExpectationValidationResult]:
        configurations = [expectation.configuration for expectation in suite]
        with _quiet():
            results = self._validator.graph_validate(
                configurations=configurations, runtime_configuration={"result_format": wanted}
            )
        return _in_order(configurations, results)


def _in_order(configurations: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """GE puts results that it could not evaluate first: sort by the identity of the expectation."""
    rest = list(results)
    ordered = []
    for configuration in configurations:
        found = next(result for result in rest if result.expectation_config == configuration)
        rest.remove(found)
        ordered.append(found)
    return ordered


@contextmanager
def _quiet() -> Iterator[None]:
    """GE logs every failed query with its traceback; the report says it, so keep it off the terminal."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
