"""SEMANTICS 3.1, 3.2, 3.4, 3.8: which events a window holds, drawn.

One character is a second, a letter an event, ``^`` the question; below it stands what counts. Windows of 20 s move
in steps of 5 s::

    |    |    |    |    |
    a    b     c      d^
         [-------------)        at most: 20 s and what is left of a step
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.status import Int64Array
from skewless.contract.window_events import EventSelector
from skewless.contract.windows.history import Limit, Timeline, WindowHistory
from skewless.contract.windows.hops import DAY, HOUR, MINUTE, SECOND, check_hops, default_hop, window_start
from skewless.contract.windows.state_layout import NEVER, EventOrigins
from skewless.contract.windows.view import Aggregate, Function, WindowView

WINDOW, HOP = 20 * SECOND, 5 * SECOND
BASE = 1_700_000_000 * SECOND  # a whole number of hops


def make_view(*functions: Function, dtype: DType = DType.FLOAT64) -> WindowView:
    return WindowView(
        name="v",
        keys=(Column(name="id", dtype=DType.INT64),),
        source="s",
        event_column="ts",
        inputs=(Column(name="x", dtype=dtype),),
        aggregates=tuple(
            Aggregate(name=function, column="x", function=function, window_us=WINDOW, hop_us=HOP)
            for function in functions
        ),
    )


def held(drawing: str, *, known: dict[str, int] | None = None, move_us: int = 0) -> str:
    """Return the drawing with only those letters left that the window at ``^`` holds.

    Args:
        drawing: the events of one key.
        known: second at which an event is known, by letter; others are known at once.
        move_us: how much later all events happened.
    """
    places = [place for place, letter in enumerate(drawing) if letter.isalpha()]
    ts = np.array([BASE + place * SECOND + move_us for place in places], dtype=np.int64)
    late = np.array([BASE + (known or {}).get(drawing[place], -100) * SECOND for place in places], dtype=np.int64)
    t = np.array([BASE + drawing.index("^") * SECOND])
    # Each event is a bit of the sum.
    answer = ask(make_view(Function.SUM), [float(1 << i) for i in range(len(places))], ts, t, late)
    total = int(np.nan_to_num(answer[0, 0]))
    counted = [place for i, place in enumerate(places) if total >> i & 1]
    return "".join(letter if place in counted else " " for place, letter in enumerate(drawing)).rstrip()


def ask(
    view: WindowView, values: object, ts: Int64Array, t: Int64Array, known: Int64Array | None = None
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    n = len(ts)
    origin = EventOrigins(ts=ts, partition=np.zeros(n, dtype=np.int64), seq=np.arange(n))
    typed = pa.array(values, pa.string() if view.inputs[0].dtype is DType.STRING else pa.float64())
    seen = EventSelector(view).select(pa.table({"id": pa.array([7] * n, pa.int64()), "x": typed}), origin)
    entity = np.zeros(len(seen.rows), dtype=np.int64)
    timeline = Timeline.from_events(1, entity, seen.origin, seen.words, seen.hashes)
    limits = [] if known is None else [Limit(values=known[seen.rows], most=t)]
    return WindowHistory(view).features(timeline, np.zeros(len(t), dtype=np.int64), t, limits)


def test_a_window_is_closed_on_its_left_and_open_on_its_right() -> None:
    #          |    |    |    |    |
    drawing = "a   bc             d^e"
    counted = "a   bc             d"
    assert held(drawing) == counted


def test_the_event_being_predicted_is_not_in_its_own_features() -> None:
    assert held("                   a^", move_us=SECOND) == ""
    assert held("                   a^", move_us=SECOND - 1) == "                   a"


def test_the_left_edge_is_floored_to_a_hop() -> None:
    #            |    |    |    |    |    |
    assert held("a   bc                  ^") == "a   bc"
    assert held("a   bc                   ^") == "     c"


def test_an_event_a_microsecond_before_the_left_edge_is_out() -> None:
    assert held("     a                   ^") == "     a"
    assert held("     a                   ^", move_us=-1) == ""


def test_a_window_moves_without_new_events() -> None:
    assert held("a    b                       ^") == "     b"
    assert held("a    b                        ^") == ""


def test_an_event_counts_from_when_it_is_known() -> None:
    assert held("  a  b      ^", known={"b": 12}) == "  a  b"
    assert held("  a  b      ^", known={"b": 13}) == "  a"


def test_events_that_are_not_known_yet_leave_gaps() -> None:
    known = {"b": 14, "c": 15, "f": 14, "h": 99}
    drawing = " abcdefgh    ^"
    counted = " a  de g"
    assert held(drawing, known=known) == counted


def test_before_1970_edges_are_floored_too() -> None:
    assert window_start(-1, WINDOW, HOP) == -25 * SECOND
    assert window_start(-5 * SECOND, WINDOW, HOP) == -25 * SECOND


def test_of_equal_times_the_position_decides() -> None:
    ts = np.full(3, BASE)
    view = make_view(Function.FIRST, Function.LAST)
    answer = ask(view, [3.0, 1.0, 2.0], ts, np.array([BASE + 1]))
    assert answer.tolist() == [[3.0, 2.0]]


def test_an_empty_window_counts_zero_and_is_null_otherwise() -> None:
    nothing = np.empty(0, dtype=np.int64)
    numbers = make_view(*(function for function in Function if function is not Function.COUNT_DISTINCT))
    answer = ask(numbers, [], nothing, np.array([BASE]))
    assert answer[0, 0] == 0
    assert np.isnan(answer[0, 1:]).all()
    assert WindowHistory(numbers).empty_features().tobytes() == answer[0].tobytes()
    texts = make_view(Function.COUNT, Function.COUNT_DISTINCT, dtype=DType.STRING)
    assert ask(texts, [], nothing, np.array([BASE])).tolist() == [[0.0, 0.0]]


def test_no_questions_give_no_answers() -> None:
    answer = ask(make_view(Function.SUM), [1.0], np.array([BASE]), np.empty(0, dtype=np.int64))
    assert answer.shape == (0, 1)


def test_an_event_that_nobody_knows_of_never_counts() -> None:
    answer = ask(make_view(Function.COUNT), [1.0], np.array([BASE]), np.array([BASE + 1]), np.array([NEVER]))
    assert answer.tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("window", "hop"),
    [
        (MINUTE * 10, 5 * MINUTE),
        (12 * HOUR - SECOND, 5 * MINUTE),
        (12 * HOUR, HOUR),
        (12 * DAY - SECOND, HOUR),
        (12 * DAY, DAY),
        (90 * DAY, DAY),
    ],
)
def test_hops_are_those_of_chronon(window: int, hop: int) -> None:
    assert default_hop(window) == hop


@pytest.mark.parametrize(
    ("lengths", "problem"),
    [
        ([(HOUR, HOUR)], "below its length"),
        ([(HOUR, SECOND // 2)], "below its length"),
        ([(HOUR, SECOND + 1)], "below its length"),
        ([(HOUR, 5 * MINUTE), (DAY, 7 * MINUTE)], "does not divide"),
    ],
)
def test_hops_that_tiles_cannot_keep_are_refused(lengths: list[tuple[int, int]], problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        check_hops("view 'v'", lengths)


def test_hops_that_divide_each_other_are_accepted() -> None:
    check_hops("view 'v'", [(HOUR, 5 * MINUTE), (DAY, HOUR), (90 * DAY, DAY)])
