"""Results are judged, merged and written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.page import write
from benchmarks.result import Result

KEYS = ["name", "value", "unit", "against", "ratio", "target", "met", "machine"]


def result(name: str, ratio: float | None = 0.04, target: float | None = 0.05, unit: str = "s") -> Result:
    return Result(name=name, value=1.5, unit=unit, against="peer (37.5 s)", ratio=ratio, target=target)


@pytest.mark.parametrize(
    ("unit", "ratio", "target", "met"),
    [
        ("s", 1.3, 1.3, True),
        ("MB", 1.31, 1.3, False),
        ("rows/s", 0.4, 0.4, True),
        ("rows/s", 0.39, 0.4, False),
        ("s", 0.5, None, None),
        ("s", None, 0.5, None),
    ],
)
def test_small_is_good_but_of_rates_large(
    *, unit: str, ratio: float | None, target: float | None, met: bool | None
) -> None:
    assert result("join: a", ratio, target, unit).met is met


def test_the_json_is_a_list_of_rows_in_the_order_of_the_works(tmp_path: Path) -> None:
    write([result("serving: a")], tmp_path)
    write([result("join: b"), result("join: a")], tmp_path)
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["name"] for row in rows] == ["join: b", "join: a", "serving: a"]
    assert [list(row) for row in rows] == [KEYS] * 3


def test_a_work_that_runs_again_replaces_its_own_rows_alone(tmp_path: Path) -> None:
    write([result("join: a"), result("join: gone"), result("online: kept")], tmp_path)
    write([result("join: a", ratio=0.5)], tmp_path)
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [(row["name"], row["ratio"]) for row in rows] == [("join: a", 0.5), ("online: kept", 0.04)]


def test_a_row_of_no_known_work_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not begin with its work"):
        write([result("juggling: a")], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_page_tells_the_machine_the_command_the_judgement_and_the_notes(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "join.md").write_text("## join\nTwo costs: a, b.\n")
    (tmp_path / "join.svg").write_text("<svg/>")
    write([result("join: good"), result("join: bad", ratio=0.5), result("join: told", target=None)], tmp_path)
    text = (tmp_path / "RESULTS.md").read_text()
    assert "cores (" in text
    assert "duckdb 2" in text
    assert "`make bench ONLY=join`" in text
    assert "1 of 2 targets are met. Missed: join: bad" in text
    assert "| good | 1.5 s | peer (37.5 s) | 0.04 (1/25) | ≤ 0.05 (1/20) | yes |" in text
    assert "| bad | 1.5 s | peer (37.5 s) | 0.5 | ≤ 0.05 (1/20) | **no** |" in text
    assert "Two costs: a, b." in text
    assert "![join](join.svg)" in text


def test_a_table_of_another_machine_names_it(tmp_path: Path) -> None:
    write([result("join: a"), result("join: b"), result("serving: a")], tmp_path)
    path = tmp_path / "results.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**row, "machine": "64 cores (Z80), 1 GiB"} for row in rows if "join" in row["name"]]))
    write([result("serving: a")], tmp_path)
    text = (tmp_path / "RESULTS.md").read_text()
    assert "Machine: 64 cores (Z80), 1 GiB, " in text
    (served,) = (line for line in text.splitlines() if line.startswith("`make bench ONLY=serving`"))
    assert served == f"`make bench ONLY=serving`, on {rows[-1]['machine']}"
    assert "`make bench ONLY=join`\n" in text
