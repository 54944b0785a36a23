"""Data gates: real Great Expectations on real DuckDB."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import great_expectations.expectations as gxe
import pandas as pd
import pyarrow as pa
import pytest
from great_expectations.execution_engine import PandasExecutionEngine, SqlAlchemyExecutionEngine
from great_expectations.execution_engine.sqlalchemy_batch_data import SqlAlchemyBatchData
from great_expectations.expectations.metadata_types import FailureSeverity

from skewless.contract.errors import GateError, SourceError
from skewless.validation.duckdb_engine import DuckDBExecutionEngine, ExpectationEvaluator
from skewless.validation.gates import check_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from great_expectations.expectations.expectation import Expectation

    from skewless.validation.gate_report import ExpectationResult, GateReport

ODD_NAMES = ("select", "Mixed Case", 'qu"ote', "it's", "col%s:y", "back\\slash", "ends_y", "ünï")


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as one:
        one.execute("SET TimeZone = 'UTC'")
        one.execute("""
            CREATE TABLE weather AS SELECT
                range AS id,
                CASE WHEN range % 10 = 0 THEN NULL ELSE range::DOUBLE END AS temp,
                ['JFK', 'LGA', 'EWR'][1 + range % 3] AS origin,
                TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_hours(range::INT) AS event_ts
            FROM range(50)""")
        yield one


def only(report: GateReport) -> ExpectationResult:
    assert len(report.results) == 1
    return report.results[0]


def good_suite() -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToNotBeNull(column="id"),
        gxe.ExpectColumnValuesToBeBetween(column="temp", min_value=0, max_value=49),
        gxe.ExpectColumnValuesToBeInSet(column="origin", value_set=["JFK", "LGA", "EWR"]),
        gxe.ExpectColumnMeanToBeBetween(column="temp", min_value=20, max_value=30),
        gxe.ExpectTableRowCountToBeBetween(min_value=50, max_value=50),
        gxe.ExpectColumnValuesToBeUnique(column="id"),
    ]


def test_a_suite_that_holds(connection: duckdb.DuckDBPyConnection) -> None:
    report = check_batch("weather", "FROM weather", connection, good_suite())
    report.raise_if_failed()
    assert report.success
    assert report.n_rows == 50
    assert [result.expectation for result in report.results] == [item.expectation_type for item in good_suite()]
    assert report.failed == ()
    assert json.loads(json.dumps(report.as_dict()))["name"] == "weather"


def test_a_failure_names_expectation_column_and_values(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("UPDATE weather SET temp = 999 WHERE id IN (7, 8)")
    report = check_batch("weather", "FROM weather", connection, good_suite(), sample=1)
    between, mean = report.failed
    assert (between.column, between.unexpected_count, between.sample) == ("temp", 2, (999.0,))
    assert between.unexpected_percent == pytest.approx(100 * 2 / 45)
    truth = connection.execute("SELECT avg(temp) FROM weather").fetchone()
    assert truth is not None
    assert mean.observed == pytest.approx(truth[0])
    with pytest.raises(GateError) as raised:
        report.raise_if_failed()
    for part in ("weather", "50 rows", "expect_column_values_to_be_between", "'temp'", "max_value=49", "999.0"):
        assert part in str(raised.value)
    assert "expectations.py" in raised.value.fix


def test_only_the_rows_of_the_query_are_judged(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("UPDATE weather SET temp = 999 WHERE id = 7")
    suite = [gxe.ExpectColumnValuesToBeBetween(column="temp", max_value=100)]
    assert not check_batch("w", "FROM weather", connection, suite).success
    view = check_batch("w", "SELECT * FROM weather WHERE id > 7", connection, suite)
    bound = check_batch("w", "SELECT * FROM weather WHERE id > $1", connection, suite, [7])
    assert view.success
    assert bound.success
    assert view.n_rows == bound.n_rows == 42


def test_nulls_are_counted_apart(connection: duckdb.DuckDBPyConnection) -> None:
    suite = [
        gxe.ExpectColumnValuesToNotBeNull(column="temp"),
        gxe.ExpectColumnValuesToNotBeNull(column="temp", mostly=0.9),
        gxe.ExpectColumnValuesToBeBetween(column="temp", min_value=0),
    ]
    strict, mostly, between = check_batch("w", "FROM weather", connection, suite).results
    assert (strict.success, strict.unexpected_count, strict.unexpected_percent) == (False, 5, 10.0)
    assert mostly.success
    assert between.success


def test_nan_is_not_between(connection: duckdb.DuckDBPyConnection) -> None:
    suite = [gxe.ExpectColumnValuesToBeBetween(column="x", min_value=0, max_value=1)]
    report = check_batch("w", "SELECT unnest([0.5, 'nan'::DOUBLE, NULL]) AS x", connection, suite)
    assert only(report).unexpected_count == 1


def test_an_empty_batch_fails_only_what_speaks_of_the_table(connection: duckdb.DuckDBPyConnection) -> None:
    suite = [*good_suite(), gxe.ExpectColumnMaxToBeBetween(column="temp", max_value=0)]
    report = check_batch("w", "FROM weather LIMIT 0", connection, suite)
    assert report.n_rows == 0
    assert [result.expectation for result in report.failed] == ["expect_table_row_count_to_be_between"]
    missing = check_batch("w", "FROM weather LIMIT 0", connection, [gxe.ExpectColumnValuesToNotBeNull(column="gone")])
    assert not missing.success


def test_no_suite_lets_everything_pass(connection: duckdb.DuckDBPyConnection) -> None:
    report = check_batch("w", "FROM weather", connection, [])
    assert report.success
    assert report.n_rows == 50


def test_a_missing_column_is_an_error_of_its_expectation_alone(connection: duckdb.DuckDBPyConnection) -> None:
    suite = [
        gxe.ExpectColumnValuesToNotBeNull(column="id"),
        gxe.ExpectColumnMinToBeBetween(column="gone", min_value=0),
        gxe.ExpectColumnValuesToBeUnique(column="id"),
    ]
    first, missing, last = check_batch("w", "FROM weather", connection, suite).results
    assert first.success
    assert last.success
    assert missing.column == "gone"
    assert missing.error is not None
    assert "gone" in missing.error


def test_a_warning_is_reported_and_does_not_close_the_gate(connection: duckdb.DuckDBPyConnection) -> None:
    suite = [gxe.ExpectColumnValuesToNotBeNull(column="temp", severity=FailureSeverity.WARNING)]
    report = check_batch("w", "FROM weather", connection, suite)
    report.raise_if_failed()
    assert report.success
    assert report.failed[0].severity == "warning"


def test_times_with_a_zone_are_instants(connection: duckdb.DuckDBPyConnection) -> None:
    zone = dt.timezone(dt.timedelta(hours=5))
    last = dt.datetime(2024, 1, 3, 6, tzinfo=zone)
    suite = [gxe.ExpectColumnValuesToBeBetween(column="event_ts", max_value=last)]
    assert check_batch("w", "FROM weather", connection, suite).success
    suite = [gxe.ExpectColumnValuesToBeBetween(column="event_ts", max_value=last - dt.timedelta(hours=1))]
    result = only(check_batch("w", "FROM weather", connection, suite))
    assert result.sample == ("2024-01-03T01:00:00+00:00",)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_column_names(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    query = f"SELECT id AS {quoted} FROM weather"
    suite = [
        gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, max_value=40),
        gxe.ExpectColumnMaxToBeBetween(column=name, max_value=40),
    ]
    between, largest = check_batch("w", query, connection, suite).results
    assert (between.column, between.unexpected_count, between.sample[0]) == (name, 9, 41)
    assert largest.observed == 49


@pytest.mark.parametrize(
    ("expectation", "unexpected"),
    [
        (gxe.ExpectColumnValuesToMatchRegex(column="origin", regex="^[JL]"), 16),
        (gxe.ExpectColumnValuesToMatchRegex(column="origin", regex="F"), 33),
        (gxe.ExpectColumnValuesToNotMatchRegex(column="origin", regex="F"), 17),
        (gxe.ExpectColumnValuesToMatchLikePattern(column="origin", like_pattern="J%"), 33),
        (gxe.ExpectColumnValueLengthsToEqual(column="origin", value=2), 50),
        (gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="id", column_B="temp", or_equal=False), 45),
    ],
    ids=lambda value: getattr(value, "expectation_type", None),
)
def test_what_duckdb_needs_help_with(
    connection: duckdb.DuckDBPyConnection, expectation: Expectation, unexpected: int
) -> None:
    result = only(check_batch("w", "FROM weather", connection, [expectation]))
    assert result.error is None
    assert result.unexpected_count == unexpected


@pytest.mark.parametrize(
    "expectation",
    [
        gxe.ExpectColumnValuesToBeOfType(column="temp", type_="DOUBLE"),
        gxe.ExpectColumnMedianToBeBetween(column="id", min_value=24.5, max_value=24.5),
        gxe.ExpectColumnQuantileValuesToBeBetween(
            column="id", quantile_ranges={"quantiles": [0.5], "value_ranges": [[24, 25]]}
        ),
        gxe.ExpectTableColumnsToMatchSet(column_set=["id", "temp", "origin", "event_ts"]),
        gxe.UnexpectedRowsExpectation(unexpected_rows_query="SELECT * FROM {batch} WHERE temp > 100"),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["origin", "id"]),
        gxe.ExpectColumnDistinctValuesToBeInSet(column="origin", value_set=["JFK", "LGA", "EWR"]),
    ],
    ids=lambda value: value.expectation_type,
)
def test_other_expectations_hold(connection: duckdb.DuckDBPyConnection, expectation: Expectation) -> None:
    report = check_batch("w", "FROM weather", connection, [expectation])
    assert report.success, only(report).sentence()


def test_parquet_files(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    files = [tmp_path / "it's one.parquet", tmp_path / "two.parquet"]
    for file, condition in zip(files, ("id < 20", "id >= 20"), strict=True):
        quoted = str(file).replace("'", "''")
        connection.execute(f"COPY (FROM weather WHERE {condition}) TO '{quoted}' (FORMAT parquet)")
    query, bound = "SELECT * FROM read_parquet(?)", [[str(file) for file in files]]
    assert check_batch("weather", query, connection, good_suite(), bound).success
    part = check_batch("weather", f"{query} WHERE id <> 3", connection, good_suite(), bound)
    assert part.n_rows == 49
    assert [result.observed for result in part.failed] == [49]


def test_rows_that_cannot_be_read_are_a_source_error(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not really")
    with pytest.raises(SourceError, match="batch 'weather'"):
        check_batch("weather", "SELECT * FROM read_parquet(?)", connection, good_suite(), [[str(broken)]])
    with pytest.raises(SourceError, match="nowhere"):
        check_batch("w", "FROM nowhere", connection, good_suite())
    connection.execute("CREATE TABLE words AS SELECT 'abc' AS x")
    with pytest.raises(SourceError, match="abc"):
        check_batch("w", "SELECT x::INT AS x FROM words WHERE x::INT > 0", connection, good_suite())


def test_the_callers_transaction_and_tables_are_left_alone(connection: duckdb.DuckDBPyConnection) -> None:
    table = pa.table({"x": [1, 2, 300]})
    connection.register("arrow_rows", table)
    connection.begin()
    connection.execute("INSERT INTO weather VALUES (50, 50, 'JFK', now())")
    suite = [gxe.ExpectColumnValuesToBeBetween(column="x", max_value=100)]
    assert only(check_batch("w", "FROM arrow_rows", connection, suite)).sample == (300,)
    assert check_batch("w", "FROM weather", connection, good_suite()).n_rows == 51
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM weather").fetchone() == (50,)
    assert connection.execute("FROM duckdb_views() WHERE view_name LIKE 'gate_%'").fetchall() == []


@pytest.mark.parametrize(("in_transaction", "says"), [(False, "JFK"), (True, "transaction is aborted")])
def test_a_value_that_breaks_the_query_late_closes_the_gate(
    connection: duckdb.DuckDBPyConnection, *, in_transaction: bool, says: str
) -> None:
    if in_transaction:
        connection.begin()
    suite = [gxe.ExpectColumnMaxToBeBetween(column="x", max_value=9), gxe.ExpectTableRowCountToEqual(value=50)]
    report = check_batch("w", "SELECT origin::INT AS x FROM weather", connection, suite)
    error = report.results[0].error
    assert error is not None
    assert says in error
    assert not report.success


def test_rows_stay_in_duckdb(connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    assert issubclass(DuckDBExecutionEngine, SqlAlchemyExecutionEngine)
    evaluator = ExpectationEvaluator(connection, "weather")
    assert isinstance(evaluator._validator.active_batch_data, SqlAlchemyBatchData)
    evaluator.close()

    def refuse(*_args: object, **_kwargs: object) -> None:
        pytest.fail("rows went through pandas")

    monkeypatch.setattr(pd.DataFrame, "__init__", refuse)
    monkeypatch.setattr(PandasExecutionEngine, "__init__", refuse)
    connection.execute("UPDATE weather SET temp = 999 WHERE id = 7")
    report = check_batch("weather", "FROM weather", connection, good_suite())
    assert [result.column for result in report.failed] == ["temp", "temp"]


STATISTICS = """
assert gxe.core.expect_column_kl_divergence_to_be_less_than.stats.entropy([1.0], [1.0]) == 0.0
assert "scipy.stats" in sys.modules
"""


@pytest.mark.parametrize("more", ["", pytest.param(STATISTICS, marks=pytest.mark.soak)], ids=["silent", "statistics"])
def test_nothing_is_said_on_the_terminal_or_written_elsewhere(tmp_path: Path, more: str) -> None:
    program = """
import sys
import duckdb
from pathlib import Path
from skewless.validation.gates import check_batch
from skewless.validation.suites import defer_imports
with defer_imports():
    import great_expectations.expectations as gxe
suite = [gxe.ExpectColumnMaxToBeBetween(column=c, max_value=1) for c in ("x", "gone")]
report = check_batch("v", "SELECT 5 AS x", duckdb.connect(), suite)
assert [result.observed for result in report.results] == [5, None]
# Libraries that its expectations did not need, and that are there for others.
assert not {"altair", "scipy.stats"} & set(sys.modules)
"""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program + more],
        cwd=here,
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []
    assert list(here.rglob("*")) == []
