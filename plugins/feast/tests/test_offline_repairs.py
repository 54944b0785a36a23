"""What Feast's DuckDB store does wrong offline and ours does right; the day Feast is repaired, a test here says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureStore, FeatureView, Field, FileSource, OnDemandFeatureView
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

from skewless.infra.definitions.sources.duckdb_source import DuckDBSource
from tests.worlds.feast_offline import HOUR, START, Kind, OfflineWorld, at, entity_df, key

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

HUGE = 2**53 + 1


@dataclass(frozen=True)
class Repair:
    """Something to get right, and how Feast fails at it."""

    check: Callable[[OfflineWorld, Kind], None]
    feast: type[Exception] = AssertionError
    message: str | None = None


def ask_one(world: OfflineWorld, kind: Kind, features: dict[str, pa.Array], **view: Any) -> dict[str, Any]:  # noqa: ANN401 - of a feature view
    """Return the features of the one entity that a view has, asked one hour later."""
    world.write("v.parquet", {"id": [1], "event": at(0), **features})
    types = {
        name: {pa.int64(): Int64, pa.string(): String}.get(column.type, Float64) for name, column in features.items()
    }
    world.apply(key(), world.view(features=types, **view))
    rows: dict[str, Any] = world.ask(kind, entity_df([1], [1]), [f"v:{name}" for name in features]).to_pylist()[0]
    return {name: rows[name] for name in features}


def names_that_end_in_y(world: OfflineWorld, kind: Kind) -> None:
    features = {name: pa.array([float(i)]) for i, name in enumerate(("order_y", "x", "x_y"))}
    assert ask_one(world, kind, features) == {"order_y": 0.0, "x": 1.0, "x_y": 2.0}


def names_that_feast_uses_itself(world: OfflineWorld, kind: Kind) -> None:
    features = {name: pa.array([float(i)]) for i, name in enumerate(("rn", "entity_row_id", "event_expire_timestamp"))}
    found = ask_one(world, kind, features, ttl=timedelta(days=1))
    assert found == {"rn": 0.0, "entity_row_id": 1.0, "event_expire_timestamp": 2.0}


def an_integer_beside_a_null(world: OfflineWorld, kind: Kind) -> None:
    world.write("v.parquet", {"id": [1, 2], "event": at(0, 0), "n": pa.array([HUGE, None], pa.int64())})
    world.apply(key(), world.view(features={"n": Int64}))
    frame = world.stores[kind].get_historical_features(entity_df([1, 2], [1, 1]), ["v:n"]).to_df()
    found = dict(zip(frame["id"], frame["n"], strict=True))
    assert int(found[1]) == HUGE
    assert pd.isna(found[2])


def appending_leaves_old_files_alone(world: OfflineWorld, kind: Kind) -> None:
    place = world.write("v.parquet", {"id": [1], "event": at(0), "x": [1.0]})
    before = place.stat().st_ino, place.stat().st_mtime_ns
    world.apply(key(), world.view())
    rows = pd.DataFrame({"id": [1], "event": [START + HOUR], "x": [2.0]})
    world.stores[kind].write_to_offline_store("v", rows)
    assert world.ask(kind, entity_df([1, 1], [0.5, 2]), ["v:x"])["x"].to_pylist() == [1.0, 2.0]
    assert (place.stat().st_ino, place.stat().st_mtime_ns) == before


def paths_are_relative_to_the_repo(world: OfflineWorld, kind: Kind) -> None:
    world.write("data/v.parquet", {"id": [1], "event": at(0), "x": [1.0]})
    world.apply(key(), world.view(source=FileSource(path="data/v.parquet", timestamp_field="event")))
    assert world.ask(kind, entity_df([1], [1]), ["v:x"])["x"].to_pylist() == [1.0]


def entity_rows_in_sql(world: OfflineWorld, kind: Kind) -> None:
    world.write("v.parquet", {"id": [1, 2], "event": at(0, 3), "x": [1.0, 2.0]})
    world.apply(key(), world.view(source=world.source(name="visits")))
    query = "SELECT id, event + INTERVAL 1 HOUR AS event_timestamp FROM visits ORDER BY id DESC"
    assert world.ask(kind, query, ["v:x"])["x"].to_pylist() == [2.0, 1.0]


def no_entity_rows(world: OfflineWorld, kind: Kind) -> None:
    world.write("v.parquet", {"id": [1, 2, 1, 3], "event": at(0, 1, 2, 9), "x": [1.0, 2.0, 3.0, 4.0]})
    world.apply(key(), world.view())
    found = world.ask(kind, None, ["v:x"], start_date=START, end_date=START + 3 * HOUR)
    assert found.select(["id", "x"]).to_pylist() == [{"id": 1, "x": 3.0}, {"id": 2, "x": 2.0}]
    assert set(found["event_timestamp"].to_pylist()) == {START + 3 * HOUR}


def comma_separated_sources(world: OfflineWorld, kind: Kind) -> None:
    (world.root / "v.csv").write_text("id,event,code\n007,2024-01-01T00:00:00Z,08\n")
    text = key(kind=ValueType.STRING)
    view = world.view(features={"code": String}, entities=[text], keys={"id": String}, source=world.source("v.csv"))
    world.apply(text, view)
    assert world.ask(kind, entity_df(["007"], [1]), ["v:code"])["code"].to_pylist() == ["08"]


def integers_of_comma_separated_sources(world: OfflineWorld, kind: Kind) -> None:
    huge, event = 2**53 + 1, "2024-01-01T00:00:00Z"
    (world.root / "v.csv").write_text(f"id,event,n\n{huge},{event},{huge}\n2,{event},\n")
    world.apply(key(), world.view(features={"n": Int64}, source=world.source("v.csv")))
    assert world.ask(kind, entity_df([huge, 2], [1, 1]), ["v:n"])["n"].to_pylist() == [huge, None]


def tables_of_a_database(world: OfflineWorld, kind: Kind) -> None:
    with duckdb.connect(str(world.root / "wh.duckdb")) as connection:
        connection.register("rows", pa.table({"id": [1], "event": at(0), "x": [1.5]}))
        connection.execute("CREATE TABLE t AS FROM rows")
    world.apply(key(), world.view(source=DuckDBSource(path="wh.duckdb", table="t", timestamp_field="event")))
    assert world.ask(kind, entity_df([1], [1]), ["v:x"])["x"].to_pylist() == [1.5]


def columns_follow_the_request(world: OfflineWorld, kind: Kind) -> None:
    world.write("v.parquet", {"id": [1], "event": at(0), "a": [1.0], "b": [2.0]})
    view = world.view(features={"a": Float64, "b": Float64})
    world.apply(key(), view, doubled(view))
    asked = ["v:b", "doubled:twice", "v:a"]
    found = world.ask(kind, entity_df([1], [1]), asked)
    assert found.column_names == ["id", "event_timestamp", "b", "twice", "a"]
    assert found["twice"].to_pylist() == [2.0]


def a_correction_with_equal_event_time(world: OfflineWorld, kind: Kind) -> None:
    world.write("v.parquet", {"id": [1] * 5, "event": at(*[0] * 5), "x": [1.0, 2.0, 3.0, 4.0, 5.0]})
    world.apply(key(), world.view())
    assert world.ask(kind, entity_df([1], [1]), ["v:x"])["x"].to_pylist() == [5.0]


def an_event_time_that_is_mapped(world: OfflineWorld, kind: Kind) -> None:
    world.write("v.parquet", {"id": [1], "ts": at(0), "raw": [1.0]})
    source = world.source(timestamp_field="ts", field_mapping={"raw": "x", "ts": "event_time"})
    world.apply(key(), world.view(source=source))
    assert world.ask(kind, entity_df([1], [1]), ["v:x"])["x"].to_pylist() == [1.0]


def folders_of_files(world: OfflineWorld, kind: Kind) -> None:
    for hour, name in enumerate(("a", "b")):
        world.write(f"parts/day={hour}/{name}.parquet", {"id": [1], "event": at(hour), "x": [float(hour)]})
    world.apply(key(), world.view(source=world.source("parts")))
    assert world.ask(kind, entity_df([1, 1], [0.5, 1]), ["v:x"])["x"].to_pylist() == [0.0, 1.0]


def two_versions_of_a_view(world: OfflineWorld, kind: Kind) -> None:
    world.write("v.parquet", {"id": [1], "event": at(0), "x": [1.0], "y": [2.0]})
    config = world.open(kind).config
    config.registry.enable_online_feature_view_versioning = True
    store = FeatureStore(config=config)
    for features in ({"x": Float64}, {"x": Float64, "y": Float64}):
        store.apply([key(), world.view(features=features)])
    frame: Any = entity_df([1], [1])
    found = store.get_historical_features(frame, ["v@v0:x", "v@v1:y"], full_feature_names=True).to_arrow()
    assert found.column_names[2:] == ["v@v0__x", "v@v1__y"]
    assert found.to_pylist()[0].items() >= {"v@v0__x": 1.0, "v@v1__y": 2.0}.items()


def doubled(view: FeatureView) -> OnDemandFeatureView:
    def function(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"twice": [2 * value for value in inputs["a"]]}

    twice = Field(name="twice", dtype=Float64)
    decorated = on_demand_feature_view(name="doubled", sources=[view], schema=[twice], mode="python")(function)
    assert isinstance(decorated, OnDemandFeatureView)
    return decorated


CASES = {
    "names that end in _y": Repair(names_that_end_in_y, TypeError, "Column 'order_y' is not found"),
    "names that Feast uses itself": Repair(names_that_feast_uses_itself, TypeError, "Column 'rn' is not found"),
    "an integer beside a null": Repair(an_integer_beside_a_null),
    "a correction with equal event time": Repair(a_correction_with_equal_event_time),
    "appending leaves old files alone": Repair(appending_leaves_old_files_alone),
    "paths are relative to the repo": Repair(paths_are_relative_to_the_repo, duckdb.IOException, "No files found"),
    "an event time that is mapped": Repair(an_event_time_that_is_mapped, TypeError, "Column 'ts' is not found"),
    "two versions of a view": Repair(two_versions_of_a_view, TypeError, "Column 'v__y' is not found"),
    "columns follow the request": Repair(columns_follow_the_request),
    "entity rows in SQL": Repair(entity_rows_in_sql, AttributeError, "no attribute 'columns'"),
    "no entity rows": Repair(no_entity_rows, TypeError, "unexpected keyword argument 'start_date'"),
    "folders of files": Repair(folders_of_files, AttributeError, "no attribute 'mutate'"),
    "comma separated sources": Repair(comma_separated_sources, AttributeError, "no attribute 'mutate'"),
    "integers of CSV": Repair(integers_of_comma_separated_sources, AttributeError, "no attribute 'mutate'"),
    "tables of a database": Repair(tables_of_a_database),
}


@pytest.mark.parametrize("name", CASES)
def test_ours_is_right(tmp_path: Path, name: str) -> None:
    CASES[name].check(OfflineWorld(tmp_path), "skewless")


@pytest.mark.parametrize("name", CASES)
def test_feasts_is_still_wrong(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    with pytest.raises(case.feast, match=case.message):
        case.check(OfflineWorld(tmp_path), "feast")
