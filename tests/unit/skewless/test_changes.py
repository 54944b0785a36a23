"""What ``skewless plan`` says would change: each small edit of any plan exactly once, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.commands.change_text import change_lines
from skewless.contract.changes import Change, compare_models, compare_named, compare_plans
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.labels import LabelSource
from skewless.contract.lifecycle import Rollout
from skewless.contract.plan import FeaturePlan, Service
from skewless.contract.spec import Gate, ModelSpec, Split
from skewless.contract.windows.hops import DAY, HOUR, MINUTE
from skewless.contract.windows.view import Aggregate, EventSource, Function, WindowView
from skewless.infra.reads.offline.labels import label_source
from tests.worlds.plans import columns, make_plan, make_transform, make_view, refs

# What an edit makes of a plan, and how it is said: action, kind, name, path and action of each detail.
Said = tuple[str, str, str, tuple[tuple[tuple[str, ...], str], ...]]
Edit = Callable[[FeaturePlan, Random], tuple[FeaturePlan, Said]]
_LONGEST = 400
_MOST_LINES = 8


def aggregate(name: str, window_us: int = HOUR, column: str = "x") -> Aggregate:
    return Aggregate(name=name, column=column, function=Function.MIN, window_us=window_us, hop_us=5 * MINUTE)


def window(name: str, n: int) -> WindowView:
    return WindowView(
        name=name,
        keys=columns({"id": DType.INT64}),
        source="events",
        event_column="t",
        inputs=columns({"x": DType.FLOAT64}),
        aggregates=tuple(aggregate(f"{name}_{i}") for i in range(n)),
        scales={"x": 6},
    )


EVENTS = EventSource(
    name="events",
    kind="push",
    event_column="t",
    columns=columns({"id": DType.INT64, "x": DType.FLOAT64}),
    earliest_us=0,
    latest_us=DAY,
)
MODEL = ModelSpec(
    name="fraud",
    service="s",
    labels=LabelSource(path="data/l.parquet", event_time="at", known_time="known", label="fraud"),
    algorithm="lightgbm",
    split=Split(test=timedelta(days=7)),
    params={"num_leaves": 31, "monotone": [0, 1, 0]},
    slices=("shop",),
    gate=Gate(floor=0.6),
)


@st.composite
def plans(draw: st.DrawFn) -> FeaturePlan:
    """Return a plan of at least one thing of each kind, and two of those whose order counts."""
    features = {f"f{i}": DType.FLOAT64 for i in range(draw(st.integers(2, 8)))}
    views = [make_view(f"v{i}", features=features) for i in range(draw(st.integers(2, 4)))]
    source = "\n".join(f"line {i}" for i in range(draw(st.integers(1, 40))))
    made = make_plan(
        [f"v0.{name}" for name in features],
        views=views,
        request={"a": DType.FLOAT64, "b": DType.INT64},
        transforms=[make_transform(source, ["request.a"])],
    )
    windows = tuple(window(f"w{i}", draw(st.integers(2, 40))) for i in range(draw(st.integers(1, 3))))
    return replace(made, windows=windows, sources=(EVENTS,))


def _edited(plan: FeaturePlan, field: str, kind: str, old: Any, new: Any, *details: Any) -> tuple[FeaturePlan, Said]:  # noqa: ANN401
    items = tuple(new if item is old else item for item in getattr(plan, field))
    said: Said = ("change", kind, old.name, tuple((tuple(path), action) for path, action in details))
    fields: dict[str, Any] = {field: items}
    return replace(plan, **fields), said


def _shuffled(items: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*items[1:], items[0])


def _ttl(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    old = chance.choice(plan.views)
    return _edited(plan, "views", "view", old, replace(old, ttl_us=DAY), (["ttl_us"], "change"))


def _feature_added(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    old = chance.choice(plan.views)
    at = chance.randrange(len(old.features) + 1)
    features = (*old.features[:at], Column(name="new", dtype=DType.INT32), *old.features[at:])
    return _edited(plan, "views", "view", old, replace(old, features=features), (["features", "new"], "add"))


def _feature_dropped(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    old = chance.choice(plan.views)
    gone = chance.choice(old.features)
    new = replace(old, features=tuple(item for item in old.features if item is not gone))
    return _edited(plan, "views", "view", old, new, (["features", gone.name], "remove"))


def _feature_typed(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    old = chance.choice(plan.views)
    at = chance.choice(old.features)
    features = tuple(replace(item, dtype=DType.INT64) if item is at else item for item in old.features)
    new = replace(old, features=features)
    return _edited(plan, "views", "view", old, new, (["features", at.name, "dtype"], "change"))


def _features_moved(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    old = chance.choice(plan.views)
    new = replace(old, features=_shuffled(old.features))
    return _edited(plan, "views", "view", old, new, (["features"], "order"))


def _source_moved(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    old = chance.choice(plan.views)
    new = replace(old, source=replace(old.source, path="elsewhere" * chance.randrange(1, 50)))
    return _edited(plan, "views", "view", old, new, (["source", "path"], "change"))


def _aggregate_added(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    old = chance.choice(plan.windows)
    new = replace(old, aggregates=(*old.aggregates, aggregate("new", 60 * DAY)))
    return _edited(plan, "windows", "windowed view", old, new, (["aggregates", "new"], "add"))


def _aggregate_renamed(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    old = chance.choice(plan.windows)
    at = chance.choice(old.aggregates)
    new = replace(old, aggregates=tuple(replace(i, name="new") if i is at else i for i in old.aggregates))
    details = (["aggregates", "new"], "add"), (["aggregates", at.name], "remove")
    return _edited(plan, "windows", "windowed view", old, new, *details)


def _window_longer(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    old = chance.choice(plan.windows)
    at = chance.choice(old.aggregates)
    new = replace(old, aggregates=tuple(replace(i, window_us=DAY) if i is at else i for i in old.aggregates))
    return _edited(plan, "windows", "windowed view", old, new, (["aggregates", at.name, "window_us"], "change"))


def _scale(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    old = chance.choice(plan.windows)
    return _edited(plan, "windows", "windowed view", old, replace(old, scales={"x": 2}), (["scales", "x"], "change"))


def _event_column(plan: FeaturePlan, _: Random) -> tuple[FeaturePlan, Said]:
    new = replace(EVENTS, columns=(*EVENTS.columns, Column(name="y", dtype=DType.STRING)))
    return _edited(plan, "sources", "event source", EVENTS, new, (["columns", "y"], "add"))


def _function(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    (old,) = plan.transforms
    lines = old.source.split("\n")
    lines.insert(chance.randrange(len(lines) + 1), "another line, " * 30)
    new = replace(old, source="\n".join(lines))
    return _edited(plan, "transforms", "transform", old, new, (["source"], "change"))


def _request_typed(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    old = chance.choice(plan.request)
    return _edited(plan, "request", "request field", old, replace(old, dtype=DType.STRING), (["dtype"], "change"))


def _service(plan: FeaturePlan, _: Random) -> tuple[FeaturePlan, Said]:
    (old,) = plan.services
    new = replace(old, features=(*old.features, *refs("w0.w0_0")))
    return _edited(plan, "services", "service", old, new, (["features", "w0__w0_0"], "add"))


def _view_added(plan: FeaturePlan, _: Random) -> tuple[FeaturePlan, Said]:
    return replace(plan, views=(make_view("new"), *plan.views)), ("add", "view", "new", (((), "add"),))


def _window_dropped(plan: FeaturePlan, chance: Random) -> tuple[FeaturePlan, Said]:
    gone = chance.choice(plan.windows)
    windows = tuple(view for view in plan.windows if view is not gone)
    return replace(plan, windows=windows), ("remove", "windowed view", gone.name, (((), "remove"),))


def _views_moved(plan: FeaturePlan, _: Random) -> tuple[FeaturePlan, Said]:
    return replace(plan, views=_shuffled(plan.views)), ("change", "project", "p", ((("views",), "order"),))


def _project(plan: FeaturePlan, _: Random) -> tuple[FeaturePlan, Said]:
    return replace(plan, project="q"), ("change", "project", "q", ((("project",), "change"),))


EDITS: tuple[Edit, ...] = (
    _ttl,
    _feature_added,
    _feature_dropped,
    _feature_typed,
    _features_moved,
    _source_moved,
    _aggregate_added,
    _aggregate_renamed,
    _window_longer,
    _scale,
    _event_column,
    _function,
    _request_typed,
    _service,
    _view_added,
    _window_dropped,
    _views_moved,
    _project,
)


def heard(change: Change) -> Said:
    return change.action, change.kind, change.name, tuple((item.path, item.action) for item in change.details)


def check_bounded(change: Change) -> None:
    lines = change_lines(change)
    assert len(lines) <= 1 + _MOST_LINES * len(change.details)
    assert all(len(line) <= _LONGEST and line.isprintable() for line in lines)
    # No line lists what did not change.
    assert all(line.count("__") + line.count("v0_") <= 2 for line in lines)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
@given(plan=plans(), chance=st.randoms(use_true_random=False))
def test_an_edit_is_said_once_and_nothing_else_is(edit: Edit, plan: FeaturePlan, chance: Random) -> None:
    edited, said = edit(plan, chance)
    changes = compare_plans(FeaturePlan.from_dict(plan.as_dict()), edited)
    assert [heard(change) for change in changes] == [said]
    for change in changes:
        check_bounded(change)
    assert edited.hash != plan.hash


@given(plans())
def test_equal_plans_say_nothing(plan: FeaturePlan) -> None:
    assert [view.hash for view in plan.all_views] != []  # what is computed on one side only is no change
    assert compare_plans(FeaturePlan.from_dict(plan.as_dict()), plan) == []
    assert compare_plans(plan, FeaturePlan.from_dict(plan.as_dict())) == []


@given(plans(), plans())
def test_plans_of_different_hash_differ(one: FeaturePlan, other: FeaturePlan) -> None:
    changes = compare_plans(one, other)
    assert (changes == []) == (one.hash == other.hash)
    for change in changes:
        check_bounded(change)


@given(plans(), st.randoms(use_true_random=False))
def test_two_edits_of_different_things_are_both_said(plan: FeaturePlan, chance: Random) -> None:
    first, one = _ttl(plan, chance)
    second, other = chance.choice([_aggregate_added, _event_column, _function, _service])(first, chance)
    assert {heard(change) for change in compare_plans(plan, second)} == {one, other}


def test_everything_is_new_where_there_was_no_plan() -> None:
    plan = make_plan(["v.x"], views=[make_view(), make_view("w")], transforms=[make_transform("", [])])
    said = [(item.action, item.kind, item.name) for item in compare_plans(None, plan)]
    assert said == [("add", "view", "v"), ("add", "view", "w"), ("add", "transform", "made"), ("add", "service", "s")]


def test_what_went_is_named_last() -> None:
    one, other, third = (Service(name=name, features=()) for name in "abc")
    changes = compare_named("service", {"a": one, "b": other}, {"c": third, "a": one})
    assert [(item.action, item.name) for item in changes] == [("add", "c"), ("remove", "b")]


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        ({"gate": Gate(floor=0.99)}, "~ gate.floor 0.6 -> 0.99"),
        ({"gate": Gate()}, "~ gate.floor 0.6 -> none"),
        ({"params": {"num_leaves": 63, "monotone": [0, 1, 0]}}, "~ params.num_leaves 31 -> 63"),
        ({"params": {"num_leaves": 31, "monotone": [0, 1, 1]}}, "~ params.monotone.2 0 -> 1"),
        ({"params": {"num_leaves": 31}}, "- params.monotone: 3 values"),
        ({"slices": ("shop", "country")}, "+ slices.country"),
        ({"split": Split(test=timedelta(days=14))}, "~ split.test 7 d -> 14 d"),
        ({"horizon": timedelta(minutes=90)}, "~ horizon 0 s -> 1 h 30 min"),
        ({"retrain": "0 3 * * *"}, "~ retrain none -> '0 3 * * *'"),
        ({"labels": replace(label_source(MODEL), columns={"card": "card_id"})}, "+ labels column card: 'card_id'"),
    ],
)
def test_a_change_of_a_model(edit: dict[str, Any], line: str) -> None:
    before = ModelSpec.from_dict(MODEL.as_dict())
    (change,) = compare_models([before], [replace(MODEL, **edit)])
    assert change_lines(change) == ["~ model fraud", f"    {line}"]


def test_a_rollout_that_comes_is_one_line() -> None:
    (change,) = compare_models([MODEL], [replace(MODEL, rollout=Rollout())])
    _, line = change_lines(change)
    assert line.startswith("    ~ rollout none -> Rollout(kind=")


def test_a_model_read_back_has_not_changed() -> None:
    assert compare_models([ModelSpec.from_dict(MODEL.as_dict())], [MODEL]) == []
