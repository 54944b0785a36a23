"""Our offline store behind Feast's own functions: every form of a request, streams, SQL, names and errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from feast import FeatureService, FeatureStore, FeatureView, Field, OnDemandFeatureView, PushSource
from feast.data_format import DeltaFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

from skewless.contract.errors import DefinitionError, RequestError, SourceError
from skewless.infra.definitions.compiler.views import compile_view
from skewless_feast.offline_store import SkewlessOfflineStore
from skewless_feast.requested_features import resolve_features
from skewless_feast.retrieval import SkewlessRetrievalJob
from tests.worlds.feast_offline import HOUR, START, TYPES, OfflineWorld, at, entity_df, key

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

SHOP = key("shop", ValueType.STRING)


@pytest.fixture
def offline_world(tmp_path: Path) -> OfflineWorld:
    return OfflineWorld(tmp_path)


@pytest.fixture
def two_views(offline_world: OfflineWorld) -> OfflineWorld:
    """A view with a ttl and corrections, and one with another key."""
    event = at(0, 0, 0, 2, 4, 1)
    created = at(1, 3, None, 2, 5, 1)
    values = {"x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "n": pa.array([1, None, 3, 2**53 + 1, 5, 6], pa.int64())}
    offline_world.write("v.parquet", {"id": [1, 1, 1, 1, 1, 2], "event": event, "created": created, **values})
    offline_world.write("s.parquet", {"shop": ["a", "b", "a"], "event": at(0, 0, 3), "x": [10.0, 20.0, 30.0]})
    source = offline_world.source(created_timestamp_column="created", name="visits")
    v = offline_world.view(features={"x": Float64, "n": Int64}, source=source, ttl=2 * HOUR)
    s = offline_world.view("s", entities=[SHOP], keys={"shop": String}, source=offline_world.source("s.parquet"))
    offline_world.apply(key(), SHOP, v, s, FeatureService(name="both", features=[s, v[["n"]]]), doubled(v))
    return offline_world


def doubled(view: FeatureView) -> OnDemandFeatureView:
    def function(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"sum": inputs["x"] + inputs["n"].astype("float64")})

    both = Field(name="sum", dtype=Float64)
    decorated = on_demand_feature_view(name="doubled", sources=[view], schema=[both], mode="pandas")(function)
    assert isinstance(decorated, OnDemandFeatureView)
    return decorated


def rows() -> pd.DataFrame:
    """Return entity rows out of order, with duplicates, unknown and null keys, and columns of their own."""
    frame = entity_df([1, 2, 1, 1, 3, 1, 1], [2, 1, 0, 4.5, 1, 0, 9])
    return frame.assign(shop=pd.Series(["a", None, "b", "a", "c", "b", "a"], dtype=object), label=range(7))


FEATURES = ["s:x", "v:n", "v:x"]


@pytest.mark.parametrize("as_known", [False, True])
def test_two_views_as_feasts_store_has_them(two_views: OfflineWorld, as_known: bool) -> None:  # noqa: FBT001 - a parameter
    ours, feast = two_views.both(rows(), FEATURES, full_feature_names=True, filter_by_created_timestamp=as_known)
    assert ours.column_names == ["id", "event_timestamp", "shop", "label", "s__x", "v__n", "v__x"]
    assert ours.select(["s__x", "v__n", "v__x"]).to_pylist() == feast.select(["s__x", "v__n", "v__x"]).to_pylist()
    assert ours["label"].to_pylist() == list(range(7))
    assert ours["s__x"].null_count == 2
    known = [4.0, 6.0, None, None, None, None, None]
    late = [4.0, 6.0, 2.0, 5.0, None, 2.0, None]
    assert ours["v__x"].to_pylist() == known if as_known else late


def test_a_feature_service(two_views: OfflineWorld) -> None:
    service = two_views.stores["skewless"].get_feature_service("both")
    found = two_views.ask("skewless", rows(), service)
    assert found.column_names == ["id", "event_timestamp", "shop", "label", "x", "n"]
    assert found["n"].to_pylist() == [2**53 + 1, 6, None, 5, None, None, None]


def test_a_view_twice_under_other_keys(offline_world: OfflineWorld) -> None:
    offline_world.write("v.parquet", {"id": [1, 2], "event": at(0, 0), "x": [1.0, 2.0]})
    view = offline_world.view()
    aliased = [view.with_name(name).with_join_key_map({"id": name}) for name in ("to", "from")]
    offline_world.apply(key(), view, FeatureService(name="both", features=aliased))
    frame = pd.DataFrame({"from": [1, 2], "to": [2, 2], "event_timestamp": [START + HOUR] * 2})
    service = offline_world.stores["skewless"].get_feature_service("both")
    ours, feast = (offline_world.ask(kind, frame, service, full_feature_names=True) for kind in TYPES)
    assert ours.select(["to__x", "from__x"]).to_pylist() == [{"to__x": 2.0, "from__x": i} for i in (1.0, 2.0)]
    assert ours.to_pandas()[["to__x", "from__x"]].equals(feast.to_pandas()[["to__x", "from__x"]])


def test_the_same_from_a_table_of_many_chunks(two_views: OfflineWorld) -> None:
    whole = pa.Table.from_pandas(rows())
    many = pa.concat_tables([whole.slice(i, 1) for i in range(whole.num_rows)])
    assert two_views.ask("skewless", many, FEATURES[1:]).equals(two_views.ask("skewless", whole, FEATURES[1:]))


def test_no_rows_give_no_rows(two_views: OfflineWorld) -> None:
    job = two_views.stores["skewless"].get_historical_features(rows().iloc[:0], FEATURES[1:])
    assert isinstance(job, SkewlessRetrievalJob)
    assert job.to_arrow().num_rows == 0
    assert job.to_df().columns.tolist() == ["id", "event_timestamp", "shop", "label", "n", "x"]


def test_metadata(two_views: OfflineWorld) -> None:
    metadata = two_views.stores["skewless"].get_historical_features(rows(), FEATURES[1:]).metadata
    assert metadata is not None
    assert (metadata.features, metadata.keys) == (FEATURES[1:], ["id", "shop", "label"])
    assert (metadata.min_event_timestamp, metadata.max_event_timestamp) == (START, START + 9 * HOUR)
    early = rows().assign(event_timestamp=pd.to_datetime([-1] * len(rows()), unit="ns", utc=True))
    metadata = two_views.stores["skewless"].get_historical_features(early, FEATURES[1:]).metadata
    assert metadata is not None
    assert metadata.min_event_timestamp == datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


def test_inputs_that_feast_adds_come_last_in_any_order_it_adds_them(two_views: OfflineWorld) -> None:
    store = two_views.stores["skewless"]
    view, odfv = store.get_feature_view("v"), store.get_on_demand_feature_view("doubled")
    orders = {
        resolve_features(["doubled:sum", *added], [view], [odfv], full_names=False).order
        for added in permutations(["v:x", "v:n"])
    }
    assert orders == {("sum", "x", "n")}
    assert two_views.ask("skewless", entity_df([1], [1]), ["doubled:sum"]).column_names[-3:] == ["sum", "x", "n"]
    asked = ["v:n", "doubled:sum", "v:x"]
    assert two_views.ask("skewless", entity_df([1], [1]), asked).column_names[-3:] == ["n", "sum", "x"]


def test_a_view_that_is_pushed_to_is_read_from_its_batch_source(offline_world: OfflineWorld) -> None:
    offline_world.write("v.parquet", {"id": [1], "event": at(0), "x": [1.0]})
    offline_world.apply(
        key(), offline_world.view(source=PushSource(name="pushed", batch_source=offline_world.source()))
    )
    assert offline_world.ask("skewless", entity_df([1], [1]), ["v:x"])["x"].to_pylist() == [1.0]


def test_views_without_entities(offline_world: OfflineWorld) -> None:
    offline_world.write("v.parquet", {"event": at(0, 2), "x": [1.0, 2.0]})
    offline_world.apply(offline_world.view(entities=[], keys={}))
    frame = pd.DataFrame({"event_timestamp": [START + 3 * HOUR, START - HOUR, START]})
    assert offline_world.ask("skewless", frame, ["v:x"])["x"].to_pylist() == [2.0, None, 1.0]
    ranged = offline_world.ask("skewless", None, ["v:x"], start_date=START, end_date=START + HOUR)
    assert ranged.to_pylist() == [{"event_timestamp": START + HOUR, "x": 1.0}]


def test_a_range_holds_the_keys_of_every_view(two_views: OfflineWorld) -> None:
    found = two_views.ask("skewless", None, ["s:x", "v:n"], start_date=START, end_date=START + HOUR)
    assert found.select(["shop", "id", "x", "n"]).to_pylist() == [
        {"shop": "a", "id": None, "x": 10.0, "n": None},
        {"shop": "b", "id": None, "x": 20.0, "n": None},
        {"shop": None, "id": 1, "x": None, "n": None},
        {"shop": None, "id": 2, "x": None, "n": 6},
    ]


def test_the_yaml_line_is_all_that_a_project_needs(offline_world: OfflineWorld) -> None:
    offline_world.write("v.parquet", {"id": [1], "event": at(0), "x": [1.0]})
    body = {
        "project": "p",
        "registry": "registry.db",
        "provider": "local",
        "offline_store": {"type": TYPES["skewless"], "memory_limit": "200MB", "threads": 1},
        "entity_key_serialization_version": 3,
    }
    (offline_world.root / "feature_store.yaml").write_text(yaml.safe_dump(body))
    store = FeatureStore(repo_path=str(offline_world.root))
    store.apply([key(), offline_world.view(source=offline_world.source(name="visits"), features={"x": Float64})])
    assert store.get_historical_features(entity_df([1], [1]), ["v:x"]).to_df()["x"].tolist() == [1.0]


def test_columns_are_inferred_from_any_source(offline_world: OfflineWorld) -> None:
    (offline_world.root / "v.csv").write_text("id,event,x,word\n1,2024-01-01T00:00:00Z,1.5,a\n")
    store = offline_world.open("skewless")
    view = FeatureView(name="v", entities=[key()], source=offline_world.source("v.csv"), ttl=timedelta(0))
    store.apply([key(), view])
    found = {field.name: field.dtype for field in store.get_feature_view("v").features}
    assert found == {"x": Float64, "word": String}


BAD_REQUESTS: dict[str, tuple[pd.DataFrame, list[str], str]] = {
    "no key": (entity_df([1], [1], key="other"), ["v:x"], "have no key of feature view 'v' .got 'id'"),
    "text for a number": (entity_df(["1"], [1]), ["v:x"], "key 'id': has type VARCHAR in the entity rows and BIGINT"),
    "no time": (pd.DataFrame({"id": [1]}), ["v:x"], "have no time column"),
    "two times": (
        pd.DataFrame({"id": [1], "a": [START], "b": [START]}),
        ["v:x"],
        "have no time column, or several without event_timestamp .*got 'a, b'",
    ),
    "a feature's name": (entity_df([1], [1]).assign(x=1), ["v:x"], "name of a requested feature .*got 'x'"),
    "mixed values": (
        entity_df([1, 1], [1, 1]).assign(a=pd.Series([1, "a"], dtype=object)),
        ["v:x"],
        "cannot be read: .*one type",
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_requests_that_cannot_be_answered_say_why(two_views: OfflineWorld, name: str) -> None:
    frame, features, message = BAD_REQUESTS[name]
    with pytest.raises(RequestError, match=message):
        two_views.ask("skewless", frame, features)


def test_a_query_that_cannot_be_run_says_why(two_views: OfflineWorld) -> None:
    with pytest.raises(RequestError, match=r"entity query: cannot be run: .*nowhere"):
        two_views.ask("skewless", "SELECT * FROM nowhere", ["v:x"])


def test_a_source_that_lacks_a_column_says_which(offline_world: OfflineWorld) -> None:
    offline_world.write("v.parquet", {"id": [1], "event": at(0), "y": [1.0]})
    offline_world.apply(key(), offline_world.view())
    with pytest.raises(SourceError, match=r"source of feature view 'v': has no such column .got 'x'.*id, event, y"):
        offline_world.ask("skewless", entity_df([1], [1]), ["v:x"])


ENUM = pa.array(["a", "b"]).dictionary_encode()
KEYS: dict[str, tuple[pa.Array, pa.Array, list[float | None]]] = {
    "integers beside a null, as pandas has them": (pa.array([2.0, None, 1.5]), pa.array([1, 2]), [2.0, None, None]),
    "a source as pandas writes it": (pa.array([2, 1]), pa.array([1.0, 2.0, None]), [2.0, 1.0]),
    "narrow against wide": (pa.array([2, 2**40]), pa.array([1, 2], pa.int32()), [2.0, None]),
    "beyond int64": (pa.array([2**64 - 1, 1], pa.uint64()), pa.array([1, 2**64 - 1], pa.uint64()), [2.0, 1.0]),
    "wide against unsigned": (pa.array([-1, 1]), pa.array([1, 2**64 - 1], pa.uint64()), [None, 1.0]),
    "words of a list": (ENUM, pa.array(["b", "a"]), [2.0, 1.0]),
    "nothing but nulls": (pa.nulls(2), pa.array(["b", "a"]), [None, None]),
    "dates": (
        pa.array([1, 2]).cast(pa.int32()).cast(pa.date32()),
        pa.array([2, 1]).cast(pa.int32()).cast(pa.date32()),
        [2.0, 1.0],
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_meet_whatever_their_width(offline_world: OfflineWorld, name: str) -> None:
    asked, kept, expected = KEYS[name]
    offline_world.write("v.parquet", {"id": kept, "event": at(*[0] * len(kept)), "x": [1.0, 2.0, 3.0][: len(kept)]})
    offline_world.apply(key(), offline_world.view())
    rows = pa.table({"id": asked, "event_timestamp": at(*[1] * len(asked))})
    assert offline_world.ask("skewless", rows, ["v:x"])["x"].to_pylist() == expected


def test_lake_tables_are_refused_and_not_misread(offline_world: OfflineWorld) -> None:
    offline_world.write("lake/a.parquet", {"id": [1], "event": at(0), "x": [1.0]})
    store = offline_world.open("skewless")
    view = offline_world.view(source=offline_world.source("lake", file_format=DeltaFormat()))
    store.apply([key(), view])
    frame: Any = entity_df([1], [1])
    with pytest.raises(SourceError, match="is a Delta table, which cannot be read"):
        store.get_historical_features(frame, ["v:x"]).to_arrow()
    with pytest.raises(DefinitionError, match="is a Delta table, which cannot be read"):
        compile_view(view, {"id": key()})


def test_payload_of_any_type_and_names_that_differ_in_case_pass_untouched(two_views: OfflineWorld) -> None:
    payload = {
        "ID": ["x", "y"],
        "halves": pa.array([1.0, 2.0], pa.float16()),
        "words": pa.array(["a", "b"]).dictionary_encode(),
        "lengths": pa.array([1, 2], pa.duration("ns")),
    }
    asked = pa.table({"id": [1, 2], "event_timestamp": at(2, 2), **payload})
    found = two_views.ask("skewless", asked, ["v:n"])
    assert found.drop_columns(["n"]).equals(asked)
    assert found["n"].to_pylist() == [2**53 + 1, 6]


def test_validation_names_a_missing_time_column(offline_world: OfflineWorld) -> None:
    offline_world.write("v.parquet", {"id": [1], "x": [1.0]})
    store = offline_world.open("skewless")
    with pytest.raises(SourceError, match=r"has no such column .got 'event'"):
        store._get_provider().validate_data_source(store.config, offline_world.source())


def test_pulled_columns_are_named_as_in_the_source(offline_world: OfflineWorld) -> None:
    offline_world.write("v.parquet", {"id": [1], "event": at(0), "a": [1.0], "b": [2.0]})
    source, config = offline_world.source(field_mapping={"a": "b", "b": "a"}), offline_world.open("skewless").config
    pull = SkewlessOfflineStore.pull_all_from_table_or_query
    assert pull(config, source, ["id"], ["b", "a"], "event").to_arrow().drop_columns(["event"]).to_pylist() == [
        {"id": 1, "b": 2.0, "a": 1.0}
    ]


def pulled(offline_world: OfflineWorld, kind: Any, latest: bool, created: str | None) -> list[dict[str, Any]]:  # noqa: ANN401, FBT001 - a store's kind
    store = offline_world.stores[kind]
    offline = store._get_provider().offline_store
    pull = offline.pull_latest_from_table_or_query if latest else offline.pull_all_from_table_or_query
    source = offline_world.source(created_timestamp_column=created or "")
    job = pull(store.config, source, ["id"], ["n", "x"], "event", created, START, START + 2 * HOUR)
    order = [(name, "ascending") for name in ("id", "event", "x")]
    found: list[dict[str, Any]] = job.to_arrow().sort_by(order).to_pylist()
    return found


@pytest.mark.parametrize("latest", [False, True])
def test_pulled_rows_are_those_of_feasts_store(two_views: OfflineWorld, latest: bool) -> None:  # noqa: FBT001 - a parameter
    ours, feast = (pulled(two_views, kind, latest, "created") for kind in TYPES)
    assert ours == feast
    assert [row["x"] for row in ours] == ([4.0, 6.0] if latest else [1.0, 2.0, 3.0, 4.0, 6.0])
