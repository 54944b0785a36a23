"""What comes of a new plan for views and models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.labels import LabelSource
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import Gate, ModelSpec, Split
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.definitions.plans.needed_views import Retained
from skewless.infra.definitions.plans.plan_effects import BrokenVersion, Champion, PlanEffects, ServedVersion, Training
from skewless.infra.reads.online.build_rate import estimate_build_s, record_build
from tests.worlds.plans import make_plan, make_view

SPEC = ModelSpec(
    name="m",
    service="s",
    labels=LabelSource(path="l", event_time="e", known_time="k", label="y"),
    algorithm="lightgbm",
    split=Split(test=timedelta(days=1)),
)
ONE = Champion(version="000001", spec=SPEC)


def plan(*views: str) -> FeaturePlan:
    """Return a plan whose views are written as ``name:path``: another path is another version."""
    made = [make_view(item.partition(":")[0], path=item.partition(":")[2]) for item in views]
    return make_plan([f"{view.name}.x" for view in made], views=made)


def effects(
    old: FeaturePlan | None, new: FeaturePlan, retained: Sequence[Retained] = (), champion: Champion | None = ONE
) -> PlanEffects:
    return PlanEffects(old=old, new=new, retained=retained, champions={"m": champion} if champion else {})


def test_a_view_that_changed_comes_and_its_old_version_goes_unless_a_model_reads_it() -> None:
    old, new = plan("v:1", "w:1"), plan("v:2", "w:1")
    free = effects(old, new)
    assert [(view.name, view.hash) for view in free.find_new_views()] == [("v", new.views[0].hash)]
    assert [(item.view, item.hash, item.hours) for item in free.find_retiring_views(24)] == [
        ("v", old.views[0].hash, 24)
    ]
    held = effects(old, new, [("m", "000001", old)])
    assert [view.hash for view in held.find_new_views()] == [new.views[0].hash]
    assert held.find_retiring_views(24) == []
    assert list(held.find_served_versions(lambda _: None)) == [
        ServedVersion(model="m", version="000001", role="champion", views=(f"v@{old.views[0].hash[:8]}", "w"))
    ]
    assert list(held.find_broken_versions()) == []


def test_a_view_that_a_model_has_kept_alive_does_not_come_again() -> None:
    old = plan("v:1")
    back = effects(plan("v:2"), old, [("m", "000001", old)])
    assert back.find_new_views() == []
    assert [item.hash for item in back.find_retiring_views(1)] == [plan("v:2").views[0].hash]


def test_everything_comes_where_there_was_no_plan() -> None:
    first = effects(None, plan("v:1", "w:1"), champion=None)
    assert [view.name for view in first.find_new_views()] == ["v", "w"]
    assert first.find_retiring_views(1) == []
    assert list(first.find_trainings([SPEC])) == [Training(model="m", version=None, reasons=("it has no champion",))]


@given(*[st.lists(st.sampled_from(["a:1", "a:2", "b:1", "c:1"]), unique_by=lambda it: it[0]) for _ in range(3)])
def test_what_comes_and_goes_is_the_difference_of_what_is_needed(a: list[str], b: list[str], c: list[str]) -> None:
    old, new, pinned = plan(*a), plan(*b), plan(*c)
    found = effects(old, new, [("m", "000001", pinned)])
    hashes = {each.hash: {view.hash for view in each.views} for each in (old, new, pinned)}
    before, after = hashes[old.hash] | hashes[pinned.hash], hashes[new.hash] | hashes[pinned.hash]
    assert {view.hash for view in found.find_new_views()} == after - before
    assert {item.hash for item in found.find_retiring_views(1)} == before - after


@pytest.mark.parametrize(
    ("spec", "reasons"),
    [
        (SPEC, ()),
        (replace(SPEC, gate=Gate(floor=0.9), retrain="0 3 * * *", slices=("id",)), ()),
        (replace(SPEC, params={"a": 1}, rounds=3), ("params", "rounds")),
        (replace(SPEC, seed=1), ("seed",)),
    ],
)
def test_a_model_must_be_trained_for_what_its_package_holds(spec: ModelSpec, reasons: tuple[str, ...]) -> None:
    same = plan("v:1")
    found = list(effects(same, same, [("m", "000001", same)]).find_trainings([spec]))
    assert [(item.version, item.reasons) for item in found] == ([("000001", reasons)] if reasons else [])


def test_a_model_is_not_trained_again_while_its_new_version_is_in_rollout() -> None:
    old, new, edited = plan("v:1"), plan("v:2"), replace(SPEC, seed=1)
    retained = [("m", "000001", old), ("m", "000002", new)]
    found = replace(effects(old, new, retained), challengers={"m": Champion(version="000002", spec=SPEC)})
    assert (list(found.find_trainings([SPEC])), found.find_ready_challenger(SPEC)) == ([], "000002")
    (note,) = found.describe_rollouts([SPEC])
    assert "version 000002 has these definitions and is in its rollout" in note
    (training,) = found.find_trainings([edited])
    assert (training.version, found.find_ready_challenger(edited)) == ("000001", None)
    assert list(found.describe_rollouts([edited])) == []


def test_a_model_must_be_trained_for_another_view() -> None:
    (found,) = effects(plan("v:1"), plan("v:2"), [("m", "000001", plan("v:1"))]).find_trainings([SPEC])
    assert found.reasons == ("view v",)
    (lost,) = effects(plan("v:1"), plan("v:1"), champion=Champion(version="000001", spec=None)).find_trainings([SPEC])
    assert lost.reasons == ("the package of its champion cannot be read",)


def test_versions_with_traffic_are_named_with_their_role() -> None:
    same = plan("v:1")
    policy = TrafficPolicy(number=1, phase="ab", champion="000001", challenger="000002", shadows=("000003",))
    retained = [("m", f"00000{i}", same) for i in (1, 2, 3, 4)]
    found = effects(same, same, retained).find_served_versions(lambda _: policy)
    assert [(item.version, item.role) for item in found] == [
        ("000001", "champion"),
        ("000002", "challenger"),
        ("000003", "shadow"),
    ]


def test_a_project_of_another_name_breaks_what_is_served() -> None:
    old = plan("v:1")
    found = effects(old, replace(old, project="q"), [("m", "000001", old)])
    reason = "project 'p' becomes 'q': its rows have other keys"
    assert list(found.find_broken_versions()) == [BrokenVersion(model="m", version="000001", reason=reason)]
    assert list(found.find_served_versions(lambda _: None)) == []


def test_a_rate_is_that_of_this_machine_and_not_of_a_much_smaller_build(tmp_path: Path) -> None:
    assert estimate_build_s(tmp_path, 10) is None
    record_build(tmp_path, 1_000, 2.0)
    assert estimate_build_s(tmp_path, 3_000) == 6.0
    assert estimate_build_s(tmp_path, 10_001) is None
    file = tmp_path / "build.json"
    file.write_text(file.read_text().replace('"host": "', '"host": "not-'))
    assert estimate_build_s(tmp_path, 10) is None
    file.write_text("[]")
    assert estimate_build_s(tmp_path, 10) is None
