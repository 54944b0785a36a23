"""Differences as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.commands.change_text import difference_lines
from skewless.contract.changes import Difference, find_differences
from skewless.contract.dtypes import DType
from skewless.contract.readable import length_text
from skewless.contract.windows.hops import DAY, MINUTE
from skewless.contract.windows.view import Aggregate, Function

MIN = Aggregate(name="min_60d", column="amount", function=Function.MIN, window_us=60 * DAY, hop_us=DAY)


def line(*path: str, action: str = "change", before: object = None, after: object = None) -> str:
    item = Difference(path=path, action=action, before=before, after=after)  # type: ignore[arg-type]
    (only,) = difference_lines(item)
    return only


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (line("aggregates", "min_60d", action="add", after=MIN), "+ min_60d: min of amount over 60 d"),
        (line("aggregates", "min_60d", action="remove", before=MIN), "- min_60d: min of amount over 60 d"),
        (line("aggregates", "m", "window_us", before=7 * DAY, after=14 * DAY), "~ m: window 7 d -> 14 d"),
        (line("columns", "x", "dtype", before=DType.INT64, after=DType.BOOL), "~ column x: dtype int64 -> bool"),
        (line("earliest_us", before=0, after=DAY + MINUTE), "~ earliest 1970-01-01 -> 1970-01-02 00:01:00Z"),
        (line("source", "path", before="a", after="b"), "~ source.path 'a' -> 'b'"),
        (line("features", action="order", before=[*"abc"], after=[*"acb"]), "~ order of features: c is now before b"),
        (line("x", before=[0] * 9, after=[1] * 9), "~ x 9 values -> 9 of them differ"),
        (line("x", before=[0] * 9, after=[1] * 8), "~ x 9 values -> 8 values"),
        (line("x", before=None, after="None"), "~ x none -> 'None'"),
    ],
)  # fmt: skip
def test_a_line(said: str, wanted: str) -> None:
    assert said == wanted


def test_long_texts_are_shown_where_they_differ() -> None:
    assert line("path", before="a" * 84, after="a" * 84 + "b") == "~ path ...aaaaaaaa' -> ...aaaaaaaab'"


def test_a_function_is_shown_as_a_short_diff() -> None:
    before = "def f(x):\n    return x\n"
    item = Difference(path=("source",), action="change", before=before, after=before.replace("x\n", "x + 1\n"))
    assert difference_lines(item) == [
        "~ source: 1 line added, 1 removed",
        "    -    return x",
        "    +    return x + 1",
    ]
    longer = Difference(path=("source",), action="change", before="\n", after="\n".join(map(str, range(99))))
    assert difference_lines(longer)[-1].startswith("    ... 9")


@given(st.text() | st.integers() | st.none() | st.floats(), st.text() | st.integers() | st.none() | st.floats())
def test_what_differs_looks_different(before: object, after: object) -> None:
    for item in find_differences({"x": before}, {"x": after}):
        lines = difference_lines(item)
        assert all(line.isprintable() and len(line) < 1_100 for line in lines)
        if len(lines) == 1:
            left, _, right = lines[0].removeprefix("~ x ").partition(" -> ")
            assert left != right


@given(st.integers(-(10**18), 10**18), st.integers(-(10**18), 10**18))
def test_different_lengths_read_differently(one: int, other: int) -> None:
    assert (length_text(one) == length_text(other)) == (one == other)
