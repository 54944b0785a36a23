"""Pages of Great Expectations' own make, from our results."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import great_expectations.expectations as gxe

from validation.data_docs import page_name, write_data_docs
from validation.gate_report import GateReport
from validation.gates import Gate

NOW_US = 1_700_000_000_000_000


def words(path: Path) -> str:
    """The text of a page, without tags and scripts."""
    page = re.sub(r"(?s)<(script|style).*?</\1>", "", path.read_text())
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def reports() -> list[GateReport]:
    connection = duckdb.connect()
    suite = [
        gxe.ExpectColumnValuesToBeBetween(column="x", min_value=0, max_value=46),
        gxe.ExpectColumnValuesToNotBeNull(column="x"),
        gxe.ExpectColumnMeanToBeBetween(column="x", max_value=1),
        gxe.ExpectColumnMaxToBeBetween(column="gone", max_value=1),
    ]
    bad = Gate().check("rides", "SELECT i AS x FROM range(50) r(i)", connection, suite)
    good = Gate().check("labels:late", "SELECT i AS x FROM range(50) r(i)", connection, suite[1:2])
    empty = Gate().check("none", "SELECT 1 AS x", connection, [])
    return [bad, good, empty]


def test_pages_say_what_the_reports_say(tmp_path: Path) -> None:
    index = write_data_docs(reports(), tmp_path / "docs", site="flights", now_us=NOW_US)
    assert index == tmp_path / "docs/index.html"
    names = {page_name(name) for name in ("rides", "labels:late", "none")}
    assert {path.name for path in index.parent.iterdir()} == names | {"index.html"}
    rides = words(index.parent / page_name("rides"))
    for part in (
        "Status: Failed",
        "Evaluated Expectations 4",
        "Successful Expectations 1",
        "3 unexpected values found",
        "6% of 50",
    ):
        assert part in rides, part
    assert "24.5" in rides
    assert "gone" in rides
    late = words(index.parent / page_name("labels:late"))
    assert "Status: Succeeded" in late
    assert "100% not null" in late


def test_the_index_leads_to_each_page(tmp_path: Path) -> None:
    text = write_data_docs(reports(), tmp_path, site="flights", now_us=NOW_US).read_text()
    assert "flights" in text
    for address in ("rides.html", "labels%253Alate.html", "none.html"):
        assert f"'_table_row_link_path': '{address}'" in text
    assert text.count("'_validation_success_text': 'Failed'") == 1


def test_pages_are_replaced(tmp_path: Path) -> None:
    first, second, _ = reports()
    write_data_docs([first], tmp_path, site="s", now_us=NOW_US)
    write_data_docs([second], tmp_path, site="s", now_us=NOW_US)
    assert "rides" not in words(tmp_path / "index.html")
    assert "'_table_row_link_path': 'rides.html'" not in (tmp_path / "index.html").read_text()
