"""Pages of what gates found: they say it, they lead to each other, and nothing of the data is more than text."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import great_expectations.expectations as gxe
from hypothesis import given
from hypothesis import strategies as st

from skewless.validation.data_docs import page_name, write_data_docs
from skewless.validation.gate_report import ExpectationResult, GateReport
from skewless.validation.gates import check_batch
from tests.worlds.hostile_text import MARKED_UP, MARKUP, Browser

NOW_US = 1_700_000_000_000_000


def words(path: Path) -> str:
    """The text of a page, without tags and styles."""
    page = re.sub(r"(?s)<(script|style).*?</\1>", "", path.read_text())
    return re.sub(r"\s+", " ", Browser(page).text)


def reports() -> list[GateReport]:
    connection = duckdb.connect()
    suite = [
        gxe.ExpectColumnValuesToBeBetween(column="x", min_value=0, max_value=46),
        gxe.ExpectColumnValuesToNotBeNull(column="x"),
        gxe.ExpectColumnMeanToBeBetween(column="x", max_value=1),
        gxe.ExpectColumnMaxToBeBetween(column="gone", max_value=1),
    ]
    bad = check_batch("rides", "SELECT i AS x FROM range(50) r(i)", connection, suite)
    good = check_batch("labels:late", "SELECT i AS x FROM range(50) r(i)", connection, suite[1:2])
    empty = check_batch("none", "SELECT 1 AS x", connection, [])
    return [bad, good, empty]


def test_pages_say_what_the_reports_say(tmp_path: Path) -> None:
    index = write_data_docs(reports(), tmp_path / "docs", site="flights", now_us=NOW_US)
    assert index == tmp_path / "docs/index.html"
    names = {page_name(name) for name in ("rides", "labels:late", "none")}
    assert {path.name for path in index.parent.iterdir()} == names | {"index.html"}
    rides = words(index.parent / page_name("rides"))
    for part in ("failed", "50 rows", "1 of 4 expectations hold", "47, 48, 49", "max_value=46", "24.5", "gone"):
        assert part in rides, part
    assert "passed" in words(index.parent / page_name("labels:late"))
    assert "no expectations" in words(index.parent / page_name("none"))


def test_the_index_leads_to_each_page_without_a_network(tmp_path: Path) -> None:
    index = write_data_docs(reports(), tmp_path, site="flights", now_us=NOW_US)
    assert "flights" in words(index)
    found = Browser(index.read_text())
    assert found.links == ["rides.html", "labels%253Alate.html", "none.html"]
    assert found.dangers == []
    for path in tmp_path.glob("*.html"):
        assert Browser(path.read_text()).dangers == [], path
        assert "://" not in path.read_text()


def test_pages_are_replaced(tmp_path: Path) -> None:
    first, second, _ = reports()
    write_data_docs([first], tmp_path, site="s", now_us=NOW_US)
    write_data_docs([second], tmp_path, site="s", now_us=NOW_US)
    assert "rides" not in words(tmp_path / "index.html")
    assert Browser((tmp_path / "index.html").read_text()).links == ["labels%253Alate.html"]


def test_rows_of_a_source_are_text(tmp_path: Path) -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE rows AS SELECT unnest(?) AS colour, 1 AS n", [[*MARKUP, "fine"]])
    suite = [
        gxe.ExpectColumnValuesToBeInSet(column="colour", value_set=["fine"]),
        gxe.ExpectColumnDistinctValuesToBeInSet(column="colour", value_set=["fine"]),
        gxe.ExpectColumnMostCommonValueToBeInSet(column="colour", value_set=["fine"]),
        gxe.ExpectColumnValuesToMatchRegex(column="colour", regex="^<b>fine"),
        gxe.ExpectTableColumnsToMatchSet(column_set=list(MARKUP)),
    ]
    report = check_batch("rides", "SELECT * FROM rows", connection, suite)
    assert not report.success
    index = write_data_docs([report], tmp_path, site="s", now_us=NOW_US)
    page = Browser((index.parent / "rides.html").read_text())
    assert page.dangers == []
    assert [markup for markup in MARKUP if repr(markup)[1:-1] not in page.text] == []


@given(
    st.lists(MARKED_UP, min_size=6, max_size=6),
    st.one_of(MARKED_UP, st.lists(MARKED_UP, max_size=3), st.dictionaries(MARKED_UP, MARKED_UP, max_size=3)),
)
def test_no_part_of_a_report_is_more_than_text(texts: list[str], value: object) -> None:
    site, name, column, sample, error, argument = texts
    results = (
        ExpectationResult(
            expectation="expect_column_values_to_be_in_set",
            column=column,
            success=False,
            kwargs={"column": column, argument: value},
            unexpected_count=1,
            unexpected_percent=50.0,
            observed=value,
            sample=(sample, value, None, 1.5),
        ),
        ExpectationResult(expectation=argument, column=None, success=False, severity=column, error=error),
    )
    report = GateReport(name=name[:15], n_rows=2, seconds=0.1, results=results)
    with TemporaryDirectory() as folder:
        index = write_data_docs([report], Path(folder), site=site, now_us=NOW_US)
        assert index.parent == Path(folder)
        for path in Path(folder).rglob("*"):
            assert Browser(path.read_text()).dangers == [], path.name
        assert {path.parent for path in Path(folder).rglob("*")} == {Path(folder)}
