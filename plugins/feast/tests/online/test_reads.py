"""Feast's online verbs on our store, answer for answer against Feast's own Redis store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, OnDemandFeatureView, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bytes, Float64, Int32, Int64, String
from feast.value_type import ValueType

from plugins.feast.tests.online.conftest import Make
from tests.worlds.feast_repo import USER, users_of
from tests.worlds.feast_twins import (
    TYPES,
    Kind,
    Reads,
    Twin,
    ago,
    frame,
    read_async,
    read_sync,
    row,
    schema,
    source,
    users,
)

KINDS: tuple[Kind, ...] = ("feast", "skewless")
ALL = [f"users:{name}" for name in TYPES]
FULL: dict[str, Any] = {
    "a_double": -0.1,
    "a_float": 0.1,
    "an_int64": 2**53 + 1,
    "an_int32": -7,
    "a_bool": True,
    "a_text": "é \x00 ü",
    "some_bytes": b"\xff\x00",
    "a_time": ago(days=3).replace(microsecond=0),
}
Open = Callable[[Twin], FeatureStore]
Stores = Mapping[Kind, FeatureStore]
Define = Callable[[Twin], list[Any]]


@pytest.fixture
def both(make: Make, opened: Open) -> Callable[..., dict[Kind, FeatureStore]]:
    """Apply definitions to both twins; their source of users holds one old row."""

    def applied(define: Define = lambda twin: [USER, users(twin.repo)], **more: Any) -> dict[Kind, FeatureStore]:  # noqa: ANN401 - lines of YAML
        stores: dict[Kind, FeatureStore] = {}
        for kind in KINDS:
            twin = make(kind, **more)
            twin.write("users.parquet", [row(1, ago(days=5))], schema())
            stores[kind] = opened(twin)
            stores[kind].apply(define(twin))
        return stores

    return applied


def pushed(stores: Stores, *rows: dict[str, Any]) -> None:
    """Push rows to both."""
    for store in stores.values():
        store.push("users_push", frame(rows))


def answers(stores: Stores, features: Any, entities: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as Feast takes it
    """Return what Feast's store answers, then what ours does."""
    return [
        stores[kind].get_online_features(features, entities, **more).to_dict(include_event_timestamps=True)
        for kind in KINDS
    ]


def test_every_type_is_read_as_from_feasts_store(both: Callable[..., Stores]) -> None:
    stores = both()
    pushed(stores, *[row(user, ago(hours=user), **FULL | {"an_int32": user, "a_double": user / 7}) for user in (1, 3)])
    feasts, ours = answers(stores, ALL, users_of(3, 1, 3))
    assert ours == feasts
    assert ours["an_int64"] == [2**53 + 1] * 3
    assert ours["an_int32"] == [3, 1, 3]


@pytest.mark.parametrize("read", [read_sync, read_async])
def test_sync_and_async_answer_alike(both: Callable[..., Stores], read: Reads) -> None:
    stores = both()
    pushed(stores, row(1, ago(hours=1), **FULL))
    feasts, ours = (read(stores[kind], ALL, users_of(1)).to_dict() for kind in KINDS)
    assert ours == feasts


def test_full_names_and_services(both: Callable[..., Stores]) -> None:
    def define(twin: Twin) -> list[Any]:
        view = users(twin.repo)
        service = FeatureService(name="some", features=[view[["a_text", "a_double"]].with_name("people")])
        return [USER, view, service]

    stores = both(define)
    pushed(stores, row(1, ago(hours=1), **FULL))
    for full in (False, True):
        feasts, ours = (
            stores[kind]
            .get_online_features(stores[kind].get_feature_service("some"), users_of(1), full_feature_names=full)
            .to_dict()
            for kind in KINDS
        )
        assert ours == feasts
    assert ours["people__a_double"] == [-0.1]


def test_written_frames_and_awaited_pushes_are_read(both: Callable[..., Stores]) -> None:
    stores = both()
    for store in stores.values():
        store.write_to_online_store("users", frame([row(1, ago(hours=2), **FULL)]))
    feasts, ours = answers(stores, ALL, users_of(1))
    assert ours == feasts
    asyncio.run(stores["skewless"].push_async("users_push", frame([row(1, ago(hours=1), **FULL | {"a_double": 9.0})])))
    assert answers(stores, ALL, users_of(1))[1]["a_double"] == [9.0]


def test_on_demand_views_see_what_was_read(both: Callable[..., Stores]) -> None:
    def define(twin: Twin) -> list[Any]:
        view = users(twin.repo)
        asked = RequestSource(name="asked", schema=[Field(name="factor", dtype=Float64)])

        def times(inputs: dict[str, Any]) -> dict[str, Any]:
            return {"scaled": [a * b for a, b in zip(inputs["a_double"], inputs["factor"], strict=True)]}

        decorated = on_demand_feature_view(
            sources=[view, asked], schema=[Field(name="scaled", dtype=Float64)], mode="python"
        )
        return [USER, view, cast("OnDemandFeatureView", decorated(times))]

    stores = both(define)
    pushed(stores, row(1, ago(hours=1), **FULL), row(2, ago(hours=1), **FULL | {"a_double": 3.0}))
    entities = [{"user_id": 1, "factor": 2.0}, {"user_id": 2, "factor": -1.0}]
    feasts, ours = (
        stores[kind].get_online_features(["times:scaled", "users:a_text"], entities).to_dict() for kind in KINDS
    )
    assert ours == feasts
    assert ours["scaled"] == [-0.2, -3.0]


def pair_of_views(twin: Twin) -> list[Any]:
    """Return a view of users under another name, and one whose keys are a user and a shop."""
    shop = Entity(name="shop", join_keys=["shop_code"], value_type=ValueType.STRING)
    fields = [Field(name=name, dtype=dtype) for name, dtype in (("user_id", Int64), ("shop_code", String))]
    visits = FeatureView(
        name="visits",
        entities=[shop, USER],
        ttl=timedelta(0),
        source=source(twin.repo),
        schema=[*fields, Field(name="a_double", dtype=Float64)],
    )
    payer = users(twin.repo).with_name("payer").with_join_key_map({"user_id": "payer_id"})
    services = {"pair": [payer, visits], "payers": [payer], "visitors": [visits]}
    named = [FeatureService(name=name, features=list(views)) for name, views in services.items()]
    return [USER, shop, visits, users(twin.repo), *named]


def fill_pair(stores: Stores) -> None:
    """Write a row of each of the pair."""
    pushed(stores, row(1, ago(hours=1), **FULL))
    for store in stores.values():
        store.write_to_online_store("visits", frame([row(2, ago(hours=1), shop_code="a|b}", a_double=4.0)]))


@pytest.mark.parametrize(
    ("service", "entities"),
    [
        ("payers", [{"payer_id": 1}, {"payer_id": 9}]),
        ("visitors", [{"user_id": 2, "shop_code": "a|b}"}, {"user_id": 2, "shop_code": "x"}]),
    ],
)
def test_composite_keys_and_other_names_of_keys(
    both: Callable[..., Stores], service: str, entities: list[dict[str, Any]]
) -> None:
    stores = both(pair_of_views)
    fill_pair(stores)
    feasts, ours = (
        stores[kind].get_online_features(stores[kind].get_feature_service(service), entities).to_dict()
        for kind in KINDS
    )
    assert ours == feasts
    assert ours["a_double"] == [-0.1 if service == "payers" else 4.0, None]


def test_types_of_feasts_own_are_kept_whole(both: Callable[..., Stores]) -> None:
    def define(twin: Twin) -> list[Any]:
        return [USER, lists(twin, [USER])]

    stores = both(define)
    rows = [row(1, ago(hours=1), weights=[0.1, -0.0], words=["a", "é"]), row(2, ago(hours=1), weights=[], words=None)]
    for store in stores.values():
        store.write_to_online_store("lists", frame(rows))
    feasts, ours = answers(stores, ["lists:weights", "lists:words"], users_of(1, 2))
    assert ours == feasts
    assert ours["words"] == [["a", "é"], None]


def lists(twin: Twin, entities: list[Entity]) -> FeatureView:
    """Return a view of types that our plan has none for."""
    fields = [Field(name="weights", dtype=Array(Float64)), Field(name="words", dtype=Array(String))]
    keys = [Field(name="user_id", dtype=Int64)] if entities else []
    return FeatureView(name="lists", entities=entities, source=source(twin.repo), schema=[*keys, *fields])


@pytest.mark.parametrize(
    ("declared", "dtype", "keys"),
    [
        (ValueType.STRING, String, ["a", "é|{}%", ""]),
        (ValueType.INT32, Int32, [1, -2, 0]),
        (ValueType.INT64, Int64, [2**62 + 1, -(2**63), 0]),
        (ValueType.BYTES, Bytes, [b"a", b"\xff\x00", b""]),
    ],
)
def test_keys_of_every_type(both: Callable[..., Stores], declared: ValueType, dtype: Any, keys: list[Any]) -> None:  # noqa: ANN401 - Feast's type
    entity = Entity(name="thing", join_keys=["thing_id"], value_type=declared)

    def define(twin: Twin) -> list[Any]:
        fields = [Field(name="thing_id", dtype=dtype), Field(name="n", dtype=Int64)]
        return [entity, FeatureView(name="things", entities=[entity], source=source(twin.repo), schema=fields)]

    stores = both(define)
    stamps = {"event_time": ago(hours=1), "created": ago(hours=1)}
    for store in stores.values():
        rows = [{"thing_id": key, "n": i, **stamps} for i, key in enumerate(keys[:2])]
        store.write_to_online_store("things", frame(rows))
    feasts, ours = answers(stores, ["things:n"], [{"thing_id": key} for key in keys])
    assert ours == feasts
    assert ours["n"] == [0, 1, None]


def test_every_version_of_a_view_is_read(both: Callable[..., Stores]) -> None:
    versions = {"registry": {"path": "registry.db", "enable_online_feature_view_versioning": True}}
    stores = both(lambda twin: [USER, users(twin.repo, names=("a_double",))], **versions)
    pushed(stores, row(1, ago(hours=2), a_double=1.0))
    for store in stores.values():
        view = users(Path(store.config.repo_path or ""), names=("a_double", "a_text"))
        store.apply([USER, view])
    pushed(stores, row(1, ago(hours=1), a_double=2.0, a_text="new"))
    refs = ["users@v0:a_double", "users@v1:a_double", "users@v1:a_text", "users:a_text"]
    feasts, ours = answers(stores, refs, users_of(1), full_feature_names=True)
    assert ours == feasts
    assert (ours["users@v0__a_double"], ours["users@v1__a_double"]) == ([1.0], [2.0])
    described = [
        stores[kind].get_online_features(refs[:1], users_of(1), include_feature_view_version_metadata=True)
        for kind in KINDS
    ]
    assert described[1].proto.metadata == described[0].proto.metadata


def test_stored_transforms(both: Callable[..., Stores]) -> None:
    def define(twin: Twin) -> list[Any]:
        view = users(twin.repo, names=("a_double",))

        def stored(inputs: dict[str, Any]) -> dict[str, Any]:
            return {"half": [value / 2 for value in inputs["a_double"]]}

        decorate = on_demand_feature_view(
            entities=[USER],
            sources=[view],
            schema=[Field(name="half", dtype=Float64)],
            mode="python",
            write_to_online_store=True,
        )
        return [USER, view, cast("OnDemandFeatureView", decorate(stored))]

    stores = both(define)
    pushed(stores, row(1, ago(hours=1), a_double=3.0))
    for store in stores.values():
        store.write_to_online_store("stored", frame([{"user_id": 1, "a_double": 3.0}]))
    feasts, ours = (stores[kind].get_online_features(["stored:half"], users_of(1)).to_dict() for kind in KINDS)
    assert ours == feasts == {"user_id": [1], "half": [1.5]}
