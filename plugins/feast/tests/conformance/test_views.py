"""Views of every shape through every path: mapped columns, no entities, versions, services, awaited reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import Entity, FeatureService
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

from skewless.infra.ingest.materialization.skipped_rows import read_skipped
from skewless.infra.platform.storage.project_state import ProjectState
from tests.servers.node import Node
from tests.worlds.feast_conformance import NOW, ConformanceProject, ago, asked, table_of
from tests.worlds.feast_repo import USER, users_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

# Column of the file -> its name in the view.
MAPPINGS: dict[str, dict[str, str]] = {
    "nothing": {},
    "a feature": {"raw_x": "x"},
    "the key": {"uid": "user_id"},
    "the event time": {"ts": "event_time"},
    "the created time": {"written": "created"},
    "both times": {"ts": "event_time", "written": "created"},
    "everything": {"raw_x": "x", "uid": "user_id", "ts": "event_time", "written": "created"},
}


def in_file(mapping: Mapping[str, str], columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns as the file calls them."""
    names = {name: column for column, name in mapping.items()}
    return {names.get(name, name): values for name, values in columns.items()}


@pytest.mark.parametrize("name", MAPPINGS)
def test_columns_are_mapped(feast_project: ConformanceProject, name: str) -> None:
    mapping = MAPPINGS[name]
    feast_project.write("v.parquet", in_file(mapping, table_of([1, 2], x=[1.5, None])))
    feast_project.apply(feast_project.pushed("v", source=feast_project.source("v.parquet", field_mapping=mapping)))
    provider: Any = feast_project.store._get_provider()
    provider.validate_data_source(feast_project.store.config, feast_project.store.get_feature_view("v").batch_source)
    feast_project.store.materialize(ago(days=1), ago())
    assert feast_project.online(["v:x"], users_of(1, 2, 3))["x"] == [1.5, None, None]
    assert feast_project.offline(["v:x"], asked(2, 1))["x"].to_pylist() == [None, 1.5]
    feast_project.store.push("v_push", pd.DataFrame({**table_frame([3, 4], ago(minutes=5)), "x": [3.5, 4.5]}))
    assert feast_project.online(["v:x"], users_of(3, 4, 1))["x"] == [3.5, 4.5, 1.5]
    feast_project.store.materialize_incremental(ago())
    assert feast_project.online(["v:x"], users_of(1, 3))["x"] == [1.5, 3.5]


def table_frame(ids: list[int], at: Any = None) -> dict[str, Any]:  # noqa: ANN401 - a time
    """Return keys and times of a frame, as the view calls them."""
    return {"user_id": ids, "event_time": [at or ago(hours=1)] * len(ids), "created": [at or ago(hours=1)] * len(ids)}


def test_a_mapped_list_is_materialised(feast_project: ConformanceProject) -> None:
    from feast.types import Array  # noqa: PLC0415 - one case

    mapping = MAPPINGS["everything"]
    feast_project.write("v.parquet", in_file(mapping, table_of([1], x=pa.array([[1.0, None]]))))
    feast_project.apply(
        feast_project.pushed(
            "v", {"x": Array(Float64)}, source=feast_project.source("v.parquet", field_mapping=mapping)
        )
    )
    feast_project.store.materialize(ago(days=1), ago())
    (found,) = feast_project.online(["v:x"], users_of(1))["x"]
    assert str(found) == "[1.0, nan]"


@pytest.mark.parametrize("kind", ["x", "list"])
def test_a_view_without_entities(feast_project: ConformanceProject, kind: str) -> None:
    from feast.types import Array  # noqa: PLC0415 - one case

    values, dtype = ([1.0, 2.0], Float64) if kind == "x" else ([[1.0], [2.0]], Array(Float64))
    columns = table_of([1, 2], x=values)
    columns["event_time"] = pa.array([ago(hours=2), ago(hours=1)], columns["event_time"].type)
    feast_project.write("v.parquet", columns)
    feast_project.apply(feast_project.pushed("v", {"x": dtype}, entities=(), keys={}))
    feast_project.store.materialize(ago(days=1), ago())
    assert feast_project.online(["v:x"], users_of(1, 9))["x"] == [values[1]] * 2
    assert feast_project.offline(["v:x"], asked(1, 9))["x"].to_pylist() == [values[1]] * 2
    frame = pd.DataFrame({"event_time": [ago(minutes=1)], "created": [ago(minutes=1)]})
    frame["x"] = pd.Series([values[0]], dtype=object if kind == "list" else None)
    feast_project.store.push("v_push", frame)
    assert feast_project.online(["v:x"], users_of(1))["x"] == [values[0]]


def test_a_view_without_entities_is_materialised_by_increments(feast_project: ConformanceProject) -> None:
    """Before reads: Feast hides the entity in what its registry keeps, and refuses the view in later increments."""
    feast_project.write("v.parquet", table_of([1], x=[1.0]))
    feast_project.apply(feast_project.pushed("v", {"x": Float64}, entities=(), keys={}))
    feast_project.store.materialize_incremental(ago(minutes=90))
    feast_project.store.materialize_incremental(ago())
    assert feast_project.online(["v:x"], users_of(1, 2))["x"] == [1.0, 1.0]


def test_a_view_without_entities_beside_one_with_some(feast_project: ConformanceProject) -> None:
    feast_project.write("v.parquet", table_of([1], x=[1.0]))
    feast_project.write("w.parquet", table_of([1], y=[2.0]))
    feast_project.apply(feast_project.pushed("v"), feast_project.pushed("w", {"y": Float64}, entities=(), keys={}))
    feast_project.store.materialize(ago(days=1), ago())
    assert feast_project.online(["v:x", "w:y"], users_of(1, 2)) == {
        "user_id": [1, 2],
        "x": [1.0, None],
        "y": [2.0, 2.0],
    }
    found = feast_project.offline(["v:x", "w:y"], asked(1, 2))
    assert (found["x"].to_pylist(), found["y"].to_pylist()) == ([1.0, None], [2.0, 2.0])


def test_versions_stand_side_by_side(valkey: Node, tmp_path_factory: pytest.TempPathFactory) -> None:
    registry = {"path": "registry.db", "enable_online_feature_view_versioning": True}
    feast_project = ConformanceProject(tmp_path_factory.mktemp("versions"), valkey.port, registry=registry)
    feast_project.write("v.parquet", table_of([1], x=[1.0]))
    feast_project.apply(feast_project.pushed("v"))
    feast_project.store.materialize(ago(days=1), ago())
    feast_project.write("v.parquet", table_of([1], x=[2.0], y=[3.0]))
    feast_project.apply(feast_project.pushed("v", {"x": Float64, "y": Float64}))
    feast_project.store.materialize(ago(days=1), ago())
    answer = feast_project.online(["v@v0:x", "v@v1:x", "v:y"], users_of(1), full_feature_names=True)
    assert (answer["v@v0__x"], answer["v@v1__x"]) == ([1.0], [2.0])


@pytest.mark.parametrize(
    ("key", "kind", "values"),
    [
        ("Int64", ValueType.INT64, [2**53 + 1, -(2**63)]),
        ("Int32", ValueType.INT32, [1, -(2**31)]),
        ("String", ValueType.STRING, ["", "é|{}"]),
    ],
)
def test_keys_of_each_type(feast_project: ConformanceProject, key: str, kind: ValueType, values: list[Any]) -> None:
    from feast import types  # noqa: PLC0415 - by name

    arrow = {"Int64": pa.int64(), "Int32": pa.int32(), "String": pa.string()}[key]
    columns = {**table_of([0, 0], x=[1.0, 2.0]), "k": pa.array(values, arrow)}
    feast_project.write("v.parquet", columns)
    entity = Entity(name="e", join_keys=["k"], value_type=kind)
    feast_project.store.apply([entity, feast_project.pushed("v", entities=[entity], keys={"k": getattr(types, key)})])
    feast_project.store.materialize(ago(days=1), ago())
    rows = [{"k": value} for value in reversed(values)]
    assert feast_project.online(["v:x"], rows)["x"] == [2.0, 1.0]
    entities = pd.DataFrame({"k": list(reversed(values)), "event_timestamp": [NOW] * 2})
    assert feast_project.offline(["v:x"], entities)["x"].to_pylist() == [2.0, 1.0]


def test_two_entities_in_any_order(feast_project: ConformanceProject) -> None:
    shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
    feast_project.write("v.parquet", {**table_of([1, 1], x=[1.0, 2.0]), "shop": ["a", "b"]})
    feast_project.apply(shop, feast_project.pushed("v", entities=[shop, USER], keys={"user_id": Int64, "shop": String}))
    feast_project.store.materialize(ago(days=1), ago())
    rows = [{"shop": "b", "user_id": 1}, {"shop": "a", "user_id": 1}, {"shop": "a", "user_id": 2}]
    assert feast_project.online(["v:x"], rows)["x"] == [2.0, 1.0, None]
    assert feast_project.offline(["v:x"], asked(1, 1, 2, shop=["b", "a", "a"]))["x"].to_pylist() == [2.0, 1.0, None]


def test_services_and_other_names_of_join_keys(feast_project: ConformanceProject) -> None:
    feast_project.write("v.parquet", table_of([1, 2], x=[1.0, 2.0]))
    view = feast_project.pushed("v")
    payer = view.with_name("payer").with_join_key_map({"user_id": "payer_id"})
    payee = view.with_name("payee").with_join_key_map({"user_id": "payee_id"})
    feast_project.apply(view, FeatureService(name="s", features=[payer, payee[["x"]]]))
    feast_project.store.materialize(ago(days=1), ago())
    service = feast_project.store.get_feature_service("s")
    answer = feast_project.online(service, [{"payer_id": 1, "payee_id": 2}], full_feature_names=True)
    assert (answer["payer__x"], answer["payee__x"]) == ([1.0], [2.0])
    rows = pd.DataFrame({"payer_id": [2], "payee_id": [9], "event_timestamp": [NOW]})
    found = feast_project.offline(service, rows, full_feature_names=True)
    assert (found["payer__x"].to_pylist(), found["payee__x"].to_pylist()) == ([2.0], [None])


ASYNC: dict[str, Callable[[ConformanceProject, pd.DataFrame], Any]] = {
    "push_async": lambda feast_project, frame: feast_project.store.push_async("v_push", frame),
    "write_to_online_store_async": lambda feast_project, frame: feast_project.store.write_to_online_store_async(
        "v", frame
    ),
}


@pytest.mark.parametrize("name", ASYNC)
def test_what_may_be_awaited(feast_project: ConformanceProject, name: str) -> None:
    feast_project.write("v.parquet", table_of([9], x=[9.0]))
    feast_project.apply(feast_project.pushed("v"))
    frame = pd.DataFrame({**table_frame([1, 2]), "x": [1.0, 2.0]})

    async def run() -> dict[str, Any]:
        await ASYNC[name](feast_project, frame)
        many = [feast_project.store.get_online_features_async(["v:x"], users_of(1, 2, 3)) for _ in range(5)]
        answers = [answer.to_dict()["x"] for answer in await asyncio.gather(*many)]
        await feast_project.store.close()
        return {"answers": answers}

    assert asyncio.run(run())["answers"] == [[1.0, 2.0, None]] * 5


@pytest.mark.parametrize("to", ["ONLINE", "OFFLINE", "ONLINE_AND_OFFLINE"])
def test_pushes_go_where_they_are_sent(feast_project: ConformanceProject, to: str) -> None:
    from feast.data_source import PushMode  # noqa: PLC0415 - one case

    feast_project.write("v.parquet", table_of([9], x=[9.0]))
    feast_project.apply(feast_project.pushed("v"))
    feast_project.store.push("v_push", pd.DataFrame({**table_frame([1]), "x": [1.0]}), to=PushMode[to])
    assert feast_project.online(["v:x"], users_of(1))["x"] == [1.0 if "ONLINE" in to else None]
    assert feast_project.offline(["v:x"], asked(1))["x"].to_pylist() == [1.0 if "OFFLINE" in to else None]


def test_a_forecast_waits_online_and_offline(feast_project: ConformanceProject) -> None:
    columns = table_of([1, 1], x=[1.0, 2.0])
    columns["event_time"] = pa.array([ago(hours=1), NOW + timedelta(hours=1)], columns["event_time"].type)
    columns["created"] = pa.array([ago(hours=2)] * 2, columns["created"].type)
    feast_project.write("v.parquet", columns)
    feast_project.apply(feast_project.pushed("v"))
    feast_project.store.materialize(ago(days=1), NOW + timedelta(days=1))
    assert feast_project.online(["v:x"], users_of(1))["x"] == [1.0]
    assert feast_project.offline(["v:x"], asked(1))["x"].to_pylist() == [1.0]
    assert {item.reason: item.rows for item in read_skipped(ProjectState(feast_project.state))} == {
        "event time lies in the future": 1
    }
