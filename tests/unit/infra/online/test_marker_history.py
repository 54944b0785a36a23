"""Marker status of rows, compared with simple models."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skewless.infra.reads.online.marker_history import MarkerHistory, MarkerStatus
from skewless.infra.reads.online.port import Marker

NAMES = ["m", "n", "o"]
MARKS = st.none() | st.builds(Marker, st.integers(-1, 5), st.integers(0, 20))
READS = st.lists(st.tuples(st.lists(st.sampled_from(NAMES), unique=True), st.lists(MARKS, min_size=3, max_size=3)))


@given(READS)
def test_4_5_a_marker_is_lost_where_it_is_gone_or_further_back_than_it_ever_was(
    reads: list[tuple[list[str], list[Marker | None]]],
) -> None:
    marker_history, furthest = MarkerHistory(), dict[str, int]()
    for names, marks in reads:
        found = dict(zip(names, marks, strict=False))
        marker_status = marker_history.check_markers(names, list(found.values()))
        lost = {name for name, mark in found.items() if mark is None or mark.position < furthest.get(name, -9)}
        assert marker_status.lost == lost
        assert marker_status.watermarks == {name: mark.watermark_us for name, mark in found.items() if mark is not None}
        furthest |= {name: mark.position for name, mark in found.items() if mark is not None and name not in lost}


STEPS = st.lists(st.sampled_from(["read", "find", "expect"]), min_size=3, max_size=9)


@given(STEPS, st.lists(MARKS, min_size=1, max_size=2), st.integers(2, 5))
@example(["read", "expect", "read"], [Marker(3)], 5)
def test_4_5_a_read_that_gives_the_same_markers_again_is_judged_again(
    steps: list[str], markers: list[Marker | None], position: int
) -> None:
    """A reader returns the same list while nothing has changed, so the history may remember its last status."""
    marker_history, other, names = MarkerHistory(), MarkerHistory(), NAMES[: len(markers)]
    for step in steps:
        if step == "expect":
            for each in (marker_history, other):
                each.expect("m", position)
        elif step == "find":
            found = [each.find_lost(names, [Marker(position)] * len(names)) for each in (marker_history, other)]
            assert found[0] == found[1]
        else:
            status = other.check_markers(names, list(markers))  # a new list has no last status
            assert marker_history.check_markers(names, markers) == status


def test_8_4_a_watermark_that_goes_back_is_no_loss() -> None:
    marker_history = MarkerHistory()
    assert [marker_history.check_markers(["m"], [Marker(3, at)]).lost for at in (50, 40, 0)] == [set()] * 3


@pytest.mark.parametrize("order", [(5, 3), (3, 5)])
def test_4_5_of_what_is_expected_the_furthest_counts(order: tuple[int, int]) -> None:
    marker_history = MarkerHistory()
    for position in order:
        marker_history.expect("m", position)
    assert marker_history.find_lost(["m"], [Marker(4, 99)]) == {"m"}
    assert marker_history.find_lost(["m"], [Marker(5)]) == set()


def test_4_5_what_is_expected_does_not_take_back_what_was_seen() -> None:
    marker_history = MarkerHistory()
    assert marker_history.find_lost(["m"], [Marker(7)]) == set()
    marker_history.expect("m", 5)
    assert marker_history.find_lost(["m"], [Marker(6)]) == {"m"}


def test_names_and_markers_that_do_not_belong_together_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        MarkerHistory().check_markers(["m", "n"], [Marker(1)])


def test_8_4_the_watermark_of_several_markers_is_the_least_and_unknown_where_one_is() -> None:
    marker_status = MarkerStatus(frozenset(), {"m": 9, "n": 4, "o": 0})
    names: list[list[str]] = [["m"], ["m", "n"], ["m", "o"], ["m", "gone"], []]
    assert [marker_status.watermark(each) for each in names] == [9, 4, 0, 0, 0]


@given(
    st.sets(st.sampled_from(NAMES)),
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 20)),
    st.lists(st.tuples(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), st.integers(1, 9)), max_size=3),
    st.integers(0, 30),
)
def test_8_4_a_view_is_lost_where_its_oldest_marker_is_older_than_it_may_be(
    lost: set[str], watermarks: dict[str, int], limits: list[tuple[list[str], int]], t: int
) -> None:
    before = MarkerStatus(frozenset(lost), watermarks)
    after = before
    for i, (names, max_us) in enumerate(limits):
        after = after.limit_age(f"view {i}", names, max_us, t)
    old = [
        {f"view {i}", *names}
        for i, (names, max_us) in enumerate(limits)
        if any(t - watermarks.get(name, 0) > max_us for name in names)
    ]
    assert after.lost == lost.union(*old)
    assert after.watermarks == watermarks
    assert before == MarkerStatus(frozenset(lost), watermarks)
    assert before.limit_age("view", [], 0, t) == before
