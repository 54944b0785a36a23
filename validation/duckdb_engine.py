"""Runs Great Expectations on an existing DuckDB connection.

Written for Great Expectations 1.24, with an execution engine and a validator. A data context, data source or batch
definition would cost time, state or a second connection. Three things are adapted:

* GE closes the connection after each query and reads the result afterwards, which DuckDB does not allow. For SQLite
  and others GE keeps one connection, and so does this engine (``get_connection``).
* SQLAlchemy calls begin, rollback and close. The caller owns the connection, with its transaction, temporary views
  and registered Arrow tables, so these calls do nothing.
* GE does not know DuckDB's regular expressions (``regexp_matches``) and LIKE; Dremio has the same syntax.

And one for speed: an expectation computes its configuration from its fields each time that GE reads it, about 70 times
for one evaluation. Here it computes it once (``QuickConfiguration``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import duckdb
import sqlalchemy
from duckdb_sqlalchemy import ConnectionWrapper
from great_expectations.compatibility.pydantic import PrivateAttr
from great_expectations.core.batch import Batch
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.execution_engine import SqlAlchemyExecutionEngine
from great_expectations.execution_engine.sqlalchemy_batch_data import SqlAlchemyBatchData
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.validator.validator import Validator


class BorrowedConnection(ConnectionWrapper):
    """A DuckDB connection whose transaction and lifetime the caller controls."""

    def begin(self) -> None:
        """Leave the caller's transaction as it is."""

    def commit(self) -> None:
        """Leave the caller's transaction as it is."""

    def rollback(self) -> None:
        """Leave the caller's transaction as it is."""

    def close(self) -> None:
        """Leave the caller's connection open."""


class DuckDBExecutionEngine(SqlAlchemyExecutionEngine):
    """GE's SQL engine on a DuckDB connection of the caller."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Use ``connection`` until ``close``."""
        # A pool of one connection: temporary views and registered tables do not exist on another.
        engine = sqlalchemy.create_engine(
            "duckdb://", creator=lambda: BorrowedConnection(connection), poolclass=sqlalchemy.StaticPool
        )
        # GE recognizes a dialect by this attribute; DuckDB shares Dremio's syntax.
        vars(engine.dialect)["DremioDialect"] = True
        super().__init__(engine=engine, create_temp_table=False)

    @contextmanager
    def get_connection(self) -> Iterator[sqlalchemy.Connection]:
        """Yield the one connection, which stays open until ``close``."""
        if self._connection is None:
            self._connection = self.engine.connect()
        yield self._connection


class QuickConfiguration(ExpectationConfiguration):
    """GE's configuration of an expectation, whose expectation computes its configuration once.

    Attributes:
        expectation: the expectation that computed it; None: it is from elsewhere.
    """

    expectation: Expectation | None = None

    def to_domain_obj(self) -> Expectation:
        """Return the expectation of this configuration; GE makes a new one for each step, and for each metric."""
        if self.expectation is not None:
            return self.expectation
        expectation = super().to_domain_obj()
        # Copied, not validated again: GE's own object has just been validated.
        return _quick_class(type(expectation)).construct(expectation.__fields_set__, **vars(expectation))


@cache
def _quick_class(kind: type[Expectation]) -> type[Expectation]:
    """Return a class of expectations that differs from another only in when it computes its configuration."""

    class QuickExpectation(kind):  # type: ignore[misc, valid-type]  # any class of expectations
        _configuration: QuickConfiguration | None = PrivateAttr(None)

        @property
        def configuration(self) -> ExpectationConfiguration:
            if self._configuration is None:
                self._configuration = _quicken(super().configuration)
                self._configuration.expectation = self
            return self._configuration

    # GE takes the type of an expectation from its class; the new class is registered under a type of its own.
    QuickExpectation.__name__, QuickExpectation.expectation_type = kind.__name__, kind.expectation_type
    return QuickExpectation


class QuietValidator(Validator):
    """GE's validator without progress bars."""

    def _determine_progress_bars(self) -> bool:
        return False


class ExpectationEvaluator:
    """Evaluates expectations on one table or view of a DuckDB connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: str) -> None:
        """Prepare to evaluate on ``table``, a plain identifier in ``connection``."""
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
            sample: number of unexpected values to return.
        """
        return self._validate(suite, {"result_format": detail, "partial_unexpected_count": sample})

    def queries(self, suite: Sequence[Expectation], row: str) -> list[str | None]:
        """Return SQL for the rows that violate each expectation, column ``row`` first; None: it is not about rows.

        Args:
            suite: failed expectations.
            row: a column that identifies rows.
        """
        result_format = {
            "result_format": "BOOLEAN_ONLY",
            "unexpected_index_column_names": [row],
            "return_unexpected_index_query": True,
        }
        queries = [result.result.get("unexpected_index_query") for result in self._validate(suite, result_format)]
        return [None if query is None else query.rstrip().removesuffix(";") for query in queries]

    def close(self) -> None:
        """Release the connection, which stays open."""
        self._engine.close()

    def _validate(
        self, suite: Sequence[Expectation], result_format: dict[str, Any]
    ) -> list[ExpectationValidationResult]:
        configurations = [expectation.configuration for expectation in suite]
        quick: list[ExpectationConfiguration] = [_quicken(configuration) for configuration in configurations]
        with _quiet():
            results = self._validator.graph_validate(
                configurations=quick, runtime_configuration={"result_format": result_format}
            )
        return _in_order(configurations, results)


def _quicken(configuration: ExpectationConfiguration) -> QuickConfiguration:
    return QuickConfiguration(
        type=configuration.type,
        kwargs=configuration.kwargs,
        meta=configuration.meta,
        notes=configuration.notes,
        description=configuration.description,
        severity=configuration.severity,
        id=configuration.id,
        rendered_content=configuration.rendered_content,
    )


def _in_order(configurations: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """Return results in the order of their expectations; GE puts results that it could not evaluate first."""
    remaining = list(results)
    ordered = []
    for configuration in configurations:
        match = next(result for result in remaining if result.expectation_config == configuration)
        remaining.remove(match)
        ordered.append(match)
    return ordered


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence GE, which logs every failed query with its traceback; the report has the error."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
