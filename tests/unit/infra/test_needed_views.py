"""What has to be fed: the plan in force, and what versions pin that answer or may answer again."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import Aggregate, EventSource, Function, WindowView
from skewless.infra.definitions.plans.needed_views import merge_needed_views
from tests.worlds.plans import columns, make_view

HOUR = 3_600_000_000


def source(*names: str) -> EventSource:
    return EventSource(
        name="events",
        kind="push",
        event_column="at",
        columns=columns(dict.fromkeys(("id", *names), DType.INT64)),
        earliest_us=0,
        latest_us=2**60,
    )


def window(name: str, *names: str) -> WindowView:
    return WindowView(
        name=name,
        keys=columns({"id": DType.INT64}),
        source="events",
        event_column="at",
        inputs=columns(dict.fromkeys(names, DType.INT64)),
        aggregates=tuple(
            Aggregate(name=f"n_{item}", column=item, function=Function.COUNT, window_us=HOUR, hop_us=HOUR // 12)
            for item in names
        ),
    )


def plan(*views: str, windows: tuple[WindowView, ...] = (), sources: tuple[EventSource, ...] = ()) -> FeaturePlan:
    """Return a plan whose views are written as ``name:path``: another path is another version."""
    made = tuple(make_view(item.partition(":")[0], path=item.partition(":")[2]) for item in views)
    return FeaturePlan(
        project="p", views=made, request=(), transforms=(), services=(), windows=windows, sources=sources
    )


def test_a_view_that_changed_is_needed_twice_and_the_new_one_comes_first() -> None:
    needed = merge_needed_views(plan("a:new", "b:1"), [("m", "000001", plan("a:old")), ("n", "000002", plan("a:new"))])
    assert [(view.name, view.source.path) for view in needed.plan.views] == [("a", "new"), ("b", "1"), ("a", "old")]
    new, other, old = needed.plan.views
    assert needed.readers == {new.hash: ("plan", "n 000002"), other.hash: ("plan",), old.hash: ("m 000001",)}
    assert [needed.label(view) for view in needed.plan.views] == ["a", "b", f"a@{old.hash[:8]}"]
    assert needed.plan.view("a") == new
    assert needed.applied_hash == plan("a:new", "b:1").hash


def test_columns_and_sources_that_only_older_views_read_are_still_understood() -> None:
    old = plan(windows=(window("w", "x", "gone"),), sources=(source("x", "gone"),))
    new = plan(windows=(window("w", "x", "y"),), sources=(source("x", "y"),))
    needed = merge_needed_views(new, [("m", "000001", old)])
    (joined,) = needed.plan.sources
    assert [column.name for column in joined.columns] == ["id", "x", "y", "gone"]
    assert [view.hash for view in needed.plan.windows] == [new.windows[0].hash, old.windows[0].hash]
    assert merge_needed_views(plan(), [("m", "000001", old)]).plan.sources == old.sources


def test_another_projects_views_are_not_fed() -> None:
    assert (
        merge_needed_views(plan("a:1"), [("m", "000001", replace(plan("b:1"), project="q"))]).plan.views
        == plan("a:1").views
    )


@given(st.lists(st.lists(st.sampled_from(["a:1", "a:2", "b:1", "c:3"]), unique=True), min_size=1, max_size=6))
def test_every_view_of_all_is_there_once(plans: list[list[str]]) -> None:
    made = [plan(*views) for views in plans]
    needed = merge_needed_views(made[0], [("m", str(i), each) for i, each in enumerate(made[1:])])
    wanted = {view.hash for each in made for view in each.views}
    hashes = [view.hash for view in needed.plan.views]
    assert sorted(hashes) == sorted(wanted)
    assert hashes[: len(made[0].views)] == [view.hash for view in made[0].views]
    for view in needed.plan.views:
        readers = ["plan"] * (view in made[0].views)
        readers += [f"m {i}" for i, each in enumerate(made[1:]) if view in each.views]
        assert list(needed.readers[view.hash]) == readers
