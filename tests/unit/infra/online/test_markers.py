"""Stored markers, as text."""

from __future__ import annotations

import pytest

from skewless.infra.reads.online.markers import MarkerSplitter, lowest_marker, parse_marker
from skewless.infra.reads.online.port import Marker

LAYOUT = b"1a2b3c4d5e6f7788"


@pytest.mark.parametrize(
    ("stored", "mark"),
    [
        (b"7 30", Marker(7, 30)),
        (b"7 30 " + LAYOUT, Marker(7, 30)),
        (b"-1 0", Marker(-1)),
        (b"-2 0 " + LAYOUT, None),
        (b"-2 50", None),
        (b"9007199254740992 4611686018427387904", Marker(2**53, 2**62)),
        (b"7", Marker(7)),  # of a release before watermarks
        (b"", None),
        (None, None),
        pytest.param(b"7 " + LAYOUT, None, id="of a release before watermarks, in a cluster"),
    ],
)
def test_4_5_a_marker_is_a_position_and_a_time(stored: bytes | None, mark: Marker | None) -> None:
    assert parse_marker(stored) == mark


def test_4_5_markers_of_another_layout_vouch_for_nothing() -> None:
    ours, other = b"7 30 " + LAYOUT, b"7 30 " + LAYOUT[::-1]
    assert lowest_marker([ours, ours], LAYOUT.decode()) == Marker(7, 30)
    assert lowest_marker([ours, other], LAYOUT.decode()) is None
    assert lowest_marker([ours, b"7 30"], LAYOUT.decode()) is None
    assert lowest_marker([], None) is None


def test_markers_are_the_same_object_until_one_of_them_changes() -> None:
    splitter, one, both = MarkerSplitter(), [[b"a"]], [[b"a"], [b"b"]]
    _, first = splitter.split([b"row", b"7 30", b"5 40"], 1, both)
    rows, again = splitter.split([b"7 31", b"other", b"7 30", b"5 40"], 2, both)
    assert (rows, first) == ([b"7 31", b"other"], [Marker(7, 30), Marker(5, 40)])
    assert again is first
    cases: list[tuple[list[bytes | None], list[list[bytes]], list[Marker | None]]] = [
        ([b"7 30", b"6 40"], both, [Marker(7, 30), Marker(6, 40)]),
        ([b"7 30", None], both, [Marker(7, 30), None]),
        ([b"7 30", b"6 40"], [[b"a", b"b"]], [Marker(6, 30)]),
        ([b"7 30", b"6 40"], [[b"b"], [b"a"]], [Marker(7, 30), Marker(6, 40)]),
        ([b"7 30"], one, [Marker(7, 30)]),
        ([], [], []),
    ]
    for values, groups, expected in cases:
        last, (_, again) = again, splitter.split(values, 0, groups)
        assert again == expected
        assert again is not last
