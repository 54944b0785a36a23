"""What ``skewless plan`` says would change and break."""

from __future__ import annotations

from dataclasses import replace

from skewless.changes import Breakage, Change, compare_named, compare_plans, find_breakages
from skewless.dtypes import DType
from skewless.plan import FeaturePlan
from skewless.windows.hops import HOUR, MINUTE
from skewless.windows.view import Aggregate, EventSource, Function, WindowView
from tests.plans import columns, make_plan, make_transform, make_view

V, W = make_view(), make_view("w")
MADE = make_transform("def f(i): return i", ["request.a"])
SUM = Aggregate(name="s", column="x", function=Function.SUM, window_us=HOUR, hop_us=5 * MINUTE)
WINDOW = WindowView(
    name="now",
    keys=columns({"id": DType.INT64}),
    source="events",
    event_column="t",
    inputs=columns({"x": DType.FLOAT64}),
    aggregates=(SUM,),
    scales={"x": 6},
)
EVENTS = EventSource(
    name="events",
    kind="push",
    event_column="t",
    columns=columns({"id": DType.INT64, "x": DType.FLOAT64}),
    earliest_us=0,
    latest_us=1,
)
PLAN = make_plan(["v.x", "made.out"], views=[V, W], request={"a": DType.FLOAT64}, transforms=[MADE])


def said(changes: list[Change]) -> list[tuple[str, str, str]]:
    return [(change.action, change.kind, change.name) for change in changes]


def test_everything_is_new_where_there_was_no_plan() -> None:
    assert said(compare_plans(None, PLAN)) == [
        ("add", "view", "v"),
        ("add", "view", "w"),
        ("add", "transform", "made"),
        ("add", "service", "s"),
    ]


def test_a_plan_read_back_from_json_has_not_changed() -> None:
    assert compare_plans(FeaturePlan.from_dict(PLAN.as_dict()), PLAN) == []


def test_hashes_computed_on_one_side_only_are_no_change() -> None:
    again = FeaturePlan.from_dict(PLAN.as_dict())
    assert [view.hash for view in again.views] != []
    assert compare_plans(again, PLAN) == []


def test_a_change_says_what_differs() -> None:
    changed = replace(V, ttl_us=5, features=columns({"x": DType.FLOAT64, "y": DType.INT64}))
    (change,) = compare_plans(PLAN, replace(PLAN, views=(changed, W)))
    assert (change.action, change.kind, change.name) == ("change", "view", "v")
    assert change.detail == "features: [x] -> [x, y]; ttl_us: 0 -> 5"


def test_long_values_are_shown_by_their_length() -> None:
    changed = replace(MADE, source="#" * 100)
    (change,) = compare_plans(PLAN, replace(PLAN, transforms=(changed,)))
    assert "100 characters" in change.detail


def test_what_went_is_named_last() -> None:
    assert said(compare_named("model", {"a": 1, "b": 2}, {"c": 3, "a": 1})) == [
        ("add", "model", "c"),
        ("remove", "model", "b"),
    ]


def test_a_model_breaks_by_a_view_that_is_gone_or_another() -> None:
    other = replace(W, features=columns({"x": DType.FLOAT32}))
    broken = find_breakages(replace(PLAN, views=(other,)), [("m", "1", PLAN)])
    assert [(item.model, item.version) for item in broken] == [("m", "1"), ("m", "1")]
    assert "view 'v' is gone" in broken[0].reason
    assert broken[1].reason == f"view 'w' changes from {W.hash} to {other.hash}: train again"


def test_a_model_does_not_break_by_a_new_ttl_or_by_views_that_it_does_not_pin() -> None:
    new = replace(PLAN, views=(replace(V, ttl_us=9, delay_us=9, freshness_us=9),), transforms=())
    assert find_breakages(new, [("m", "1", PLAN.only("s"))]) == []


def test_a_model_breaks_when_the_project_is_renamed() -> None:
    new = replace(PLAN, project="q")
    assert find_breakages(new, [("m", "1", PLAN.only("s"))]) == [
        Breakage(model="m", version="1", reason="project 'p' becomes 'q': its rows have other keys")
    ]


def test_a_new_window_and_a_changed_one_say_that_they_have_to_be_filled() -> None:
    plan = replace(PLAN, windows=(WINDOW,), sources=(EVENTS,))
    added = compare_plans(PLAN, plan)
    assert said(added) == [("add", "windowed view", "now"), ("add", "event source", "events")]
    assert [item.detail for item in added] == ["needs `skewless bootstrap now`", ""]
    longer = replace(WINDOW, aggregates=(replace(SUM, window_us=2 * HOUR),), sketch_size=8)
    (change,) = compare_plans(plan, replace(plan, windows=(longer,)))
    assert change.detail == "aggregates: other [s]; sketch_size: 256 -> 8; needs `skewless bootstrap now`"


def test_a_window_of_the_same_state_need_not_be_filled_again() -> None:
    plan = replace(PLAN, windows=(WINDOW,), sources=(EVENTS,))
    assert WINDOW.features  # what is computed from the fields is no difference
    new = replace(plan, windows=(replace(WINDOW, freshness_us=5),), sources=(replace(EVENTS, delay_us=7),))
    assert [item.detail for item in compare_plans(plan, new)] == ["freshness_us: 0 -> 5", "delay_us: 0 -> 7"]


def test_a_model_breaks_by_a_window_that_is_gone_or_another() -> None:
    pinned = replace(PLAN, windows=(WINDOW,), sources=(EVENTS,))
    other = replace(WINDOW, scales={"x": 3})
    gone, changed = (find_breakages(replace(pinned, windows=new), [("m", "1", pinned)]) for new in ((), (other,)))
    assert [item.reason for item in gone] == ["view 'now' is gone: its rows are no longer refreshed"]
    assert [item.reason for item in changed] == [f"view 'now' changes from {WINDOW.hash} to {other.hash}: train again"]
