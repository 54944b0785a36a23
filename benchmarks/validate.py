"""A suite of 40 expectations on DuckDB, as our gates run it, against Great Expectations on pandas."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from benchmarks.contestant import Contestant, Quantity, Race, race
from benchmarks.digest import digest_columns
from benchmarks.meter import Meter, Report
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

OWN, PANDAS = "skewless", "pandas"
NUMBERS, WHOLE, TEXTS = 20, 5, 5
WORDS = ("north", "east", "south", "west")
EXPECTATIONS = 40


def run() -> list[Result]:
    """Check 1 M rows of 30 columns in one Parquet file; two expectations do not hold."""
    n = scaled(1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        _write(path, n)
        arguments = {"path": str(path)}
        done = race(
            [
                Contestant(name=OWN, entrant=on_duckdb, arguments=arguments),
                Contestant(name=PANDAS, entrant=on_pandas, arguments=arguments),
            ],
            rounds(5),
        )
    return _results(done, f"validate: {EXPECTATIONS} expectations, {n:,} rows x {NUMBERS + WHOLE + TEXTS} columns")


def suite() -> list[Expectation]:
    """Return the expectations: on values, on pairs, and on columns and the table as a whole."""
    import great_expectations.expectations as gxe  # noqa: PLC0415 - seconds: a contestant's own

    numbers = [f"x{i}" for i in range(NUMBERS)]
    found: list[Expectation] = [gxe.ExpectColumnValuesToNotBeNull(column=name) for name in [*numbers[:8], "k0", "t0"]]
    found += [gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, max_value=1) for name in numbers[:12]]
    found += [gxe.ExpectColumnValuesToBeInSet(column=f"t{i}", value_set=list(WORDS)) for i in range(TEXTS)]
    found += [gxe.ExpectColumnMeanToBeBetween(column=name, min_value=0.4, max_value=0.6) for name in numbers[:4]]
    found += [gxe.ExpectColumnMinToBeBetween(column=name, min_value=0) for name in ("k1", "k2")]
    found += [gxe.ExpectColumnMaxToBeBetween(column=name, max_value=1) for name in ("x12", "x13")]
    return [
        *found,
        gxe.ExpectColumnValuesToBeUnique(column="k0"),
        gxe.ExpectColumnValuesToMatchRegex(column="t1", regex="^[nesw]"),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="k3", column_B="k2", or_equal=True),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="x14", min_value=0, max_value=0.999),
    ]


def on_duckdb(meter: Meter, *, path: str) -> str:
    """Check as a gate does."""
    from skewless.infra.reads.offline.engine import connect  # noqa: PLC0415 - a contestant's own
    from skewless.infra.reads.offline.sql import sql_literal  # noqa: PLC0415 - only in this contestant's process
    from skewless.validation.duckdb_engine import ExpectationEvaluator  # noqa: PLC0415, F401 - imports are not what is measured
    from skewless.validation.gates import check_batch  # noqa: PLC0415 - only in this contestant's process

    expectations = suite()
    with tempfile.TemporaryDirectory() as spill, connect(Path(spill)) as connection, meter.lap():
        report = check_batch("rows", f"SELECT * FROM read_parquet({sql_literal(path)})", connection, expectations)
    return _digest((item.expectation, item.success, item.unexpected_count) for item in report.results)


def on_pandas(meter: Meter, *, path: str) -> str:
    """Read the rows into pandas and check them there."""
    import great_expectations as gx  # noqa: PLC0415 - a contestant's own
    import pandas as pd  # noqa: PLC0415 - as above
    from great_expectations.expectations.metadata_types import FailureSeverity  # noqa: PLC0415, F401 - as above

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    expectations = gx.ExpectationSuite(name="rows", expectations=suite())
    source = (
        context.data_sources.add_pandas("frames").add_dataframe_asset("rows").add_batch_definition_whole_dataframe("b")
    )
    with meter.lap():
        batch = source.get_batch({"dataframe": pd.read_parquet(path)})
        found: Any = batch.validate(expectations, result_format="SUMMARY")
    return _digest(
        (item.expectation_config.type, item.success, None if item.success else item.result.get("unexpected_count"))
        for item in found.results
    )


def _digest(verdicts: Iterable[tuple[str, bool, int | None]]) -> str:
    return digest_columns({"verdicts": sorted(map(repr, verdicts))})


def _write(path: Path, n: int) -> None:
    numbers = [f"CAST((hash(i, {c}) % 1000000) / 1000000.0 AS DOUBLE) AS x{c}" for c in range(NUMBERS)]
    whole = ["i AS k0", "i % 1000 AS k1", "i % 77 AS k2", "i % 77 + i % 3 AS k3", "i % 9 AS k4"]
    word = "CASE hash(i, '{c}') % 4 " + " ".join(f"WHEN {j} THEN '{w}'" for j, w in enumerate(WORDS)) + " END AS t{c}"
    columns = ", ".join([*numbers, *whole, *(word.format(c=c) for c in range(TEXTS))])
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT {columns} FROM range({n}) r(i)) TO '{path}' (FORMAT parquet)")


def _results(done: Race, what: str) -> list[Result]:
    def against(quantity: Quantity, of: str, unit: str, target: float | None) -> Result:
        return Result(
            name=f"{what}, {of}",
            value=done.median(OWN, quantity),
            unit=unit,
            against=f"Great Expectations on pandas ({done.median(PANDAS, quantity):.3g} {unit})",
            ratio=done.ratio(OWN, PANDAS, quantity),
            target=target,
        )

    return [
        against(Report.seconds, "time", "s", 1 / 3),
        against(Report.cpu_seconds, "CPU time", "s", None),
        against(lambda report: report.peak_bytes() / 1e6, "memory", "MB", 1 / 3),
        against(lambda report: report.grown_bytes() / 1e6, "memory without imports", "MB", None),
    ]
