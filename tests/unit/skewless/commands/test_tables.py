"""Tables of the command line: they fit a terminal of any width, and a pipe gets them complete and plain."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from skewless.commands.cells import StateCell, labelled_cell, printable
from skewless.commands.output import Session, facts_table, has_colours, records_table, terminal_width
from skewless.commands.tables import TextTable, text_width
from skewless.contract.plain_record import JSON_ONLY

RUN = "materialize:carrier_days_of_the_second_week@20260115T120000Z"
ERROR = "view 'weather': column is missing (got 'temp'). Fix: rename the field, or add the column to the file"
RUNS = TextTable(
    "runs",
    ("run", "state", "rows", "error"),
    [(RUN, StateCell("failed"), 1_234_567, ERROR), ("replay@20260115T130000Z", StateCell("done"), 12, None)],
    sums=("rows",),
)
WIDE = TextTable("many", [f"column{i}" for i in range(12)], [[f"value{i}" for i in range(12)]])


class Terminal(io.StringIO):
    """A terminal that keeps its text."""

    def isatty(self) -> bool:
        return True


def shown(part: Any, width: int | None) -> list[str]:  # noqa: ANN401 - a part of an output
    return [*part.lines(width)]


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("part", [RUNS, WIDE, facts_table("a run", [("id", RUN), ("error", ERROR)])])
def test_no_line_is_wider_than_the_terminal(part: TextTable, width: int) -> None:
    lines = shown(part, width)
    assert max(map(text_width, lines)) <= width
    assert all(line.strip() for line in lines)
    words = " ".join(" ".join(lines).split())
    assert "1,234,567" in words or part is not RUNS


def test_a_wide_terminal_and_a_pipe_show_every_cell_complete() -> None:
    for lines in (shown(RUNS, 250), shown(RUNS, None)):
        assert RUN in lines[3]
        assert ERROR in lines[3]


def test_a_sentence_is_wrapped_and_a_name_and_a_number_are_not() -> None:
    lines = shown(RUNS, 120)
    assert RUN in lines[3]
    assert "1,234,567" in lines[3]
    words = [line[line.index("view") :] if "view" in line else line.strip() for line in lines[3:6]]
    assert " ".join(" ".join(words).split()) == ERROR
    rules = [line for line in lines if set(line) <= {" ", "─"}]
    assert len(rules) == 2
    assert rules[0] == rules[1]


def test_a_table_that_is_too_narrow_for_a_name_becomes_records() -> None:
    lines = shown(RUNS, 80)
    assert lines[1].split() == ["run", RUN]
    assert lines[-2].split() == ["rows", "1,234,579"]


def test_too_many_columns_become_records() -> None:
    lines = shown(WIDE, 40)
    assert lines[0] == "many"
    assert lines[1] == "  column0   value0"
    assert len(lines) == 13


def test_columns_that_add_up_have_a_named_total() -> None:
    assert RUNS.totals == ["total", "", 1_234_579, ""]
    assert shown(RUNS, None)[-1].split() == ["total", "1,234,579"]
    assert TextTable("one", ("view", "rows"), [("a", 1)], sums=("rows",)).totals is None
    assert TextTable("other", ("view", "rows"), [("a", 1), ("b", 2)]).totals is None


def test_numbers_are_on_the_right_and_null_is_a_dash() -> None:
    assert shown(TextTable("t", ("name", "n"), [("a", 1_000), ("b", None)]), None)[1:] == [
        "  name      n",
        "  ────  ─────",
        "  a     1,000",
        "  b         -",
    ]


def test_a_column_without_a_value_is_not_shown() -> None:
    columns = ("name", "seen", "n", "verdict")
    lines = shown(TextTable("t", columns, [(None, "", 1, None), ("b", None, 0, "")], sums=("n", "verdict")), None)
    assert lines[1].split() == ["name", "n"]
    assert lines[-1].split() == ["total", "1"]
    assert shown(TextTable("t", ("name", "seen"), [("a", None), ("b", "x")]), None)[1].split() == ["name", "seen"]
    assert shown(TextTable("t", ("name", "seen"), []), None)[1].split() == ["name", "seen"]


def test_wide_characters_take_two_columns() -> None:
    lines = shown(TextTable("t", ("name", "city"), [("日本", "a"), ("b", "c")]), None)
    assert [line.index(city) for line, city in zip(lines[3:], "ac", strict=True)] == [6, 8]


def test_durations_times_and_states_are_shown_by_the_name_of_their_field() -> None:
    record = {"state": "failed", "age_s": 95_000.0, "started_at": "2026-01-15T12:00:00.123456+00:00", "rows": 3}
    lines = shown(records_table("t", [record]), None)
    assert lines[1].split() == ["state", "age", "started", "at", "rows"]
    assert re.split(r" {2,}", lines[3].strip()) == ["failed", "1 d 2 h", "2026-01-15 12:00:00Z", "3"]
    assert labelled_cell("started_at", "never") == "never"


@dataclass(frozen=True, kw_only=True)
class TableRecord:
    """A record with a field for programs."""

    step: str
    hash: str = field(metadata=JSON_ONLY)
    pid: int
    late_share: float
    online_current: bool


def test_the_columns_of_a_record_are_its_fields_without_those_for_programs() -> None:
    record = TableRecord(step="a", hash="9f", pid=12_345, late_share=0.25, online_current=False)
    table = records_table("t", [record])
    assert table.columns == ["step", "pid", "late share", "online current"]
    assert table.rows == [["a", "12345", "25.0%", StateCell("no", "warning")]]
    assert records_table("t", [record], ["hash"]).rows == [["9f"]]
    assert records_table("t", [{"n": 1}, {"n": 2}], sums=["n"]).totals == ["total"]
    assert records_table("t", []).columns == []


def output(file: io.StringIO, *, as_json: bool = False) -> Session:
    return Session(as_json=as_json, stdout=file, exits=None)  # type: ignore[arg-type]  # nothing is opened


def test_a_terminal_gets_colours_and_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    terminal = Terminal()
    output(terminal).show({}, RUNS, StateCell("done", detail=": x"))
    text = terminal.getvalue()
    assert "\x1b[31m✗ failed" in text
    assert text.endswith("\x1b[32m✓ done\x1b[0m: x\n")
    plain = re.sub(r"\x1b\[\d+m", "", text)
    assert max(map(text_width, plain.splitlines())) <= 200


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_turned_off(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert has_colours(Terminal())
    monkeypatch.setenv(name, value)
    terminal = Terminal()
    output(terminal).show({}, RUNS)
    assert "\x1b" not in terminal.getvalue()
    assert "✗" not in terminal.getvalue()


def test_a_pipe_gets_plain_text_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    pipe = io.StringIO()
    output(pipe).show({}, RUNS)
    assert pipe.getvalue().splitlines() == shown(RUNS, None)
    assert terminal_width(pipe) is None
    monkeypatch.setenv("COLUMNS", "40")
    assert terminal_width(pipe) == 40


def test_text_from_outside_cannot_control_the_terminal() -> None:
    assert printable("a\x1b]0;b\x07") == r"a\x1b]0;b\x07"
    assert "\x1b" not in "".join(shown(TextTable("t\x1b", ("a",), [("\x1b[2J",)]), None))


@pytest.mark.parametrize("width", range(10, 30))
def test_a_text_of_any_width_fits(width: int) -> None:
    table = TextTable("t", ("a", "b"), [(ERROR + "\n\n日本語日本語日本語", "[bold]x[/]")])
    lines = shown(table, width)
    assert all(text_width(line) <= width for line in lines)
    assert "[bold]x[/]" in "".join("".join(lines).split())
