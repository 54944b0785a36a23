"""SEMANTICS 6.1: the plan is plain data, and its hashes say what a model depends on."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from skewless.contract.columns import FeatureRef, digest
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.plan import FeaturePlan, Service, View
from tests.worlds.plans import columns, make_plan, make_transform, make_view, refs

ROOT = Path(__file__).parents[3]
TRANSFORM = make_transform("def f(inputs): return inputs", ["request.amount", "v.x"])
VIEW = make_view(tombstone="gone", renamed={"x": 'odd "x"'}, ttl_us=5, delay_us=6, freshness_us=7)
PLAN = make_plan(
    ["v.x", "made.out", "w.y"],
    views=[VIEW, make_view("w", features={"y": DType.STRING}), make_view("unused")],
    request={"amount": DType.FLOAT64, "spare": DType.INT64},
    transforms=[TRANSFORM, replace(TRANSFORM, name="other")],
)


def test_6_1_a_plan_survives_json() -> None:
    again = FeaturePlan.from_dict(json.loads(json.dumps(PLAN.as_dict())))
    assert again == PLAN
    assert again.hash == PLAN.hash
    assert [view.hash for view in again.views] == [view.hash for view in PLAN.views]
    assert [item.hash for item in again.transforms] == [item.hash for item in PLAN.transforms]


def test_6_1_hashes_do_not_depend_on_the_process() -> None:
    code = "import tests.unit.skewless.test_plan as t; print(t.PLAN.hash, t.VIEW.hash, t.TRANSFORM.hash)"
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
        )
        assert run.stdout.split() == [PLAN.hash, VIEW.hash, TRANSFORM.hash]


def test_6_1_a_hash_is_of_canonical_json() -> None:
    text = '{"a":null,"b":[1,"ü"]}'
    assert digest({"b": [1, "ü"], "a": None}) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_6_1_the_view_hash_is_the_same_as_when_the_first_rows_were_written() -> None:
    text = (
        '{"features":[{"dtype":"float64","name":"x"}],"keys":[{"dtype":"int64","name":"id"}],"name":"v",'
        '"source":{"columns":{},"created_column":"created","event_column":"event","path":"v.parquet",'
        '"tombstone_column":null}}'
    )
    assert make_view().hash == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    "changed",
    [
        replace(VIEW, name="renamed"),
        replace(VIEW, keys=columns({"id": DType.STRING})),
        replace(VIEW, keys=columns({"id": DType.INT64, "k": DType.INT64})),
        replace(VIEW, features=columns({"x": DType.FLOAT32})),
        replace(VIEW, features=columns({"x": DType.FLOAT64, "y": DType.FLOAT64})),
        replace(VIEW, source=replace(VIEW.source, path="w.parquet")),
        replace(VIEW, source=replace(VIEW.source, event_column="e")),
        replace(VIEW, source=replace(VIEW.source, created_column=None)),
        replace(VIEW, source=replace(VIEW.source, tombstone_column=None)),
        replace(VIEW, source=replace(VIEW.source, columns={})),
    ],
)
def test_6_1_what_the_stored_rows_depend_on_changes_the_view_hash(changed: View) -> None:
    assert changed.hash != VIEW.hash
    assert changed.partition != VIEW.partition


def test_6_1_the_order_of_features_changes_the_view_hash() -> None:
    one = make_view(features={"a": DType.INT64, "b": DType.INT64})
    two = make_view(features={"b": DType.INT64, "a": DType.INT64})
    assert one.hash != two.hash


@pytest.mark.parametrize(
    "changed", [replace(VIEW, ttl_us=1_000), replace(VIEW, delay_us=1_000), replace(VIEW, freshness_us=1_000)]
)
def test_6_1_how_long_a_row_is_valid_changes_the_plan_but_not_the_view_hash(changed: View) -> None:
    assert changed.hash == VIEW.hash
    assert replace(PLAN, views=(changed, *PLAN.views[1:])).hash != PLAN.hash


@pytest.mark.parametrize(
    "changed",
    [
        replace(TRANSFORM, source=TRANSFORM.source + " "),
        replace(TRANSFORM, function="g"),
        replace(TRANSFORM, inputs=refs("request.amount")),
        replace(TRANSFORM, outputs=columns({"out": DType.INT64})),
    ],
)
def test_6_1_what_a_transform_computes_changes_its_hash(changed: object) -> None:
    assert getattr(changed, "hash", None) != TRANSFORM.hash


def test_6_1_a_model_pins_only_what_its_service_needs() -> None:
    pinned = PLAN.select_service("s")
    assert [view.name for view in pinned.views] == ["v", "w"]
    assert [column.name for column in pinned.request] == ["amount"]
    assert [item.name for item in pinned.transforms] == ["made"]
    assert pinned.services == PLAN.services
    assert pinned.select_service("s") == pinned


def test_6_1_a_change_elsewhere_leaves_the_pinned_hash_alone() -> None:
    service = Service(name="second", features=refs("unused.x"))
    wider = replace(PLAN, views=(*PLAN.views, make_view("new")), services=(*PLAN.services, service))
    assert wider.hash != PLAN.hash
    assert wider.select_service("s").hash == PLAN.select_service("s").hash


@pytest.mark.parametrize(
    ("ref", "dtype"),
    [("v.x", DType.FLOAT64), ("w.y", DType.STRING), ("request.spare", DType.INT64), ("made.out", DType.FLOAT64)],
)
def test_every_reference_has_a_type(ref: str, dtype: DType) -> None:
    assert PLAN.dtype(refs(ref)[0]) is dtype


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        (FeatureRef(group="v", name="nope"), "has no such feature.*nope.*use one of x"),
        (FeatureRef(group="nope", name="x"), "is unknown.*nope.*made, other"),
        (FeatureRef(group="request", name="nope"), "request field.*amount, spare"),
    ],
)
def test_an_unknown_reference_names_those_that_exist(ref: FeatureRef, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        PLAN.dtype(ref)


def test_join_keys_are_distinct_and_in_order() -> None:
    views = [make_view("a", keys={"x": DType.INT64, "y": DType.STRING}), make_view("b", keys={"y": DType.STRING})]
    assert make_plan([], views=views).join_keys == columns({"x": DType.INT64, "y": DType.STRING})
