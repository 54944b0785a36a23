from __future__ import annotations

import ast
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import great_expectations.expectations as gxe
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.validation.suggest import (
    MAX_WORDS,
    ColumnSummary,
    SuggestedExpectation,
    TableSummary,
    add_slack,
    suggest_suite,
    summarise,
)
from skewless.validation.suites import suite_source

FINITE = st.floats(-1e12, 1e12)


def table(*columns: ColumnSummary, rows: int = 1_000, **more: Any) -> TableSummary:  # noqa: ANN401
    return TableSummary(name="v", rows=rows, present=("id", "event"), columns=columns, **more)


def column(name: str = "x", dtype: DType = DType.FLOAT64, *, nulls: int = 0, **more: Any) -> ColumnSummary:  # noqa: ANN401
    return ColumnSummary(name=name, dtype=dtype, nulls=nulls, **more)


def said(suite: list[SuggestedExpectation], name: str) -> dict[str, dict[str, Any]]:
    """What a suite says of one column: by kind, its other arguments."""
    return {
        item.kind: {key: value for key, value in item.arguments.items() if key != "column"}
        for item in suite
        if item.arguments.get("column") == name
    }


@given(FINITE, FINITE, st.booleans())
def test_the_slack_is_outside_and_at_two_digits(one: float, other: float, whole: bool) -> None:  # noqa: FBT001
    low, high = min(one, other), max(one, other)
    if whole:
        low, high = float(math.floor(low)), float(math.ceil(high))
    wide_low, wide_high = add_slack((low, high), whole=whole)
    assert wide_low <= low <= high <= wide_high
    assert (wide_low >= 0) == (low >= 0)
    assert wide_high <= 0 or not low < 0 >= high
    assert wide_low < wide_high
    for end in (wide_low, wide_high):
        assert len(f"{abs(end):.15g}".replace(".", "").strip("0").partition("e")[0].strip("0")) <= 2


def test_what_the_plan_demands_is_said_of_the_smallest_table() -> None:
    suite = suggest_suite(table(column(extent=(0.0, 1.0)), rows=1, types={"id": "BIGINT"}))
    assert [(item.kind, item.arguments["column"]) for item in suite] == [
        ("ExpectColumnValuesToNotBeNull", "id"),
        ("ExpectColumnValuesToNotBeNull", "event"),
        ("ExpectColumnValuesToBeOfType", "id"),
    ]


@pytest.mark.parametrize(("nulls", "mostly"), [(0, {}), (100, {"mostly": 0.75}), (470, {"mostly": 0.01}), (480, None)])
def test_the_share_of_nulls_may_double(nulls: int, mostly: dict[str, float] | None) -> None:
    found = said(suggest_suite(table(column(nulls=nulls))), "x").get("ExpectColumnValuesToNotBeNull")
    assert found == mostly


def test_a_vocabulary_is_closed_only_where_its_words_are_many_times_there() -> None:
    words = ("b", "a")
    closed = said(suggest_suite(table(column("w", DType.STRING, words=words), rows=100)), "w")
    assert closed["ExpectColumnValuesToBeInSet"] == {"value_set": ["a", "b"]}
    assert "ExpectColumnValuesToBeInSet" not in said(
        suggest_suite(table(column("w", DType.STRING, words=words), rows=99)), "w"
    )
    assert "ExpectColumnValuesToBeInSet" not in said(suggest_suite(table(column("w", DType.STRING, words=()))), "w")


def test_ranges_hold_what_a_model_was_trained_on() -> None:
    suite = suggest_suite(table(column(extent=(2.0, 4.0))), {"x": (-10.0, 3.0), "other": (0.0, 99.0)})
    assert said(suite, "x")["ExpectColumnValuesToBeBetween"] == {"min_value": -17.0, "max_value": 11.0}


def test_labels_are_classes() -> None:
    suite = suggest_suite(table(column("y", extent=(0.0, 1.0), mean=0.3), classes={"y": 2}))
    found = said(suite, "y")
    assert found["ExpectColumnValuesToBeInSet"] == {"value_set": [0, 1]}
    assert found["ExpectColumnMeanToBeBetween"] == {"min_value": 0.15, "max_value": 0.6}
    assert "ExpectColumnValuesToBeBetween" not in found


@pytest.mark.parametrize(
    ("unique", "kinds"),
    [((), []), (("id",), ["ExpectColumnValuesToBeUnique"]), (("id", "event"), ["ExpectCompoundColumnsToBeUnique"])],
)
def test_uniqueness_is_said_where_it_is_true(unique: tuple[str, ...], kinds: list[str]) -> None:
    assert [item.kind for item in suggest_suite(table(unique=unique)) if "Unique" in item.kind] == kinds


def test_one_query_sees_what_a_table_holds() -> None:
    connection = duckdb.connect()
    query = """SELECT i AS id, i % 2 AS half, CASE WHEN i % 4 > 0 THEN i / 2 END AS x, 'w' || (i % 3) AS few,
        'w' || (i % 21) AS many, CASE WHEN i = 1 THEN 'inf'::DOUBLE WHEN i = 2 THEN 'nan'::DOUBLE ELSE -1.5 END AS odd,
        i > 3 AS flag FROM range(?) r(i)"""
    types = {"x": DType.FLOAT64, "few": DType.STRING, "many": DType.STRING, "odd": DType.FLOAT64, "flag": DType.BOOL}
    columns = [Column(name=name, dtype=dtype) for name, dtype in types.items()]
    found = summarise(connection, query, [40], columns, [["id"], ["half"], ["half", "few"]])
    assert (found.rows, found.distinct) == (40, (40, 2, 6))
    x, few, many, odd, flag = found.columns
    assert (x.nulls, x.extent) == (10, (0.5, 19.5))
    assert few.words == ("w0", "w1", "w2")
    assert many.words is None
    assert MAX_WORDS == 20
    assert (odd.extent, odd.mean) == ((-1.5, -1.5), -1.5)
    assert (flag.extent, flag.words, flag.nulls) == (None, None, 0)


ODD_SUITES = {
    "v": [
        SuggestedExpectation(kind="ExpectColumnValuesToNotBeNull", arguments={"column": 'it\'s "odd"', "mostly": 0.5}),
        SuggestedExpectation(
            kind="ExpectColumnValuesToBeInSet",
            arguments={"column": "w", "value_set": [f"a long word {i}" for i in range(5)]},
        ),
        SuggestedExpectation(
            kind="ExpectColumnValuesToBeInSet",
            arguments={"column": "w", "value_set": [f"a long word {i}" for i in range(20)]},
        ),
        SuggestedExpectation(
            kind="ExpectColumnValuesToBeInSet",
            arguments={"column": "\u00e9", "value_set": ['a "b"', "c'd", "\\", "\n"]},
        ),
        SuggestedExpectation(kind="ExpectCompoundColumnsToBeUnique", arguments={"column_list": ["a", "b"]}),
    ],
    "labels:m": [],
}


def test_the_source_says_what_was_suggested() -> None:
    space: dict[str, Any] = {}
    exec(compile(suite_source(ODD_SUITES), "expectations.py", "exec"), space)  # noqa: S102 - what is tested
    found = {
        name: [(type(item).__name__, item.configuration.kwargs) for item in suite]
        for name, suite in space["SUITES"].items()
    }
    assert found == {name: [(item.kind, dict(item.arguments)) for item in suite] for name, suite in ODD_SUITES.items()}
    assert all(hasattr(gxe, item.kind) for suite in ODD_SUITES.values() for item in suite)


def test_a_formatter_leaves_the_source_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "expectations.py"
    path.write_text(suite_source(ODD_SUITES))
    ast.parse(path.read_text())
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    assert ruff is not None
    done = subprocess.run(
        [ruff, "format", "--isolated", "--line-length", "120", "--diff", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
