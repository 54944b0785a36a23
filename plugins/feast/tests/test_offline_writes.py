"""What our offline store writes: appended rows, logs of served features, saved datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureService
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.saved_dataset import SavedDatasetStorage
from feast.types import Float64, Int64, String
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.errors import SourceError
from skewless.infra.definitions.sources.duckdb_source import DuckDBSource
from skewless.infra.reads.offline.sources import find_table
from skewless_feast.offline_store import SkewlessOfflineStore
from skewless_feast.saved_rows import new_file_name
from tests.worlds.feast_offline import HOUR, START, OfflineWorld, at, entity_df, key

pytestmark = [
    pytest.mark.filterwarnings("ignore:Saving dataset is an experimental feature:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Retrieving datasets is an experimental feature:RuntimeWarning"),
]
HUGE = 2**53 + 1
SCHEMA = pa.schema([("id", pa.int64()), ("event", pa.timestamp("us", tz="UTC")), ("n", pa.int64())])


@pytest.fixture
def offline_world(tmp_path: Path) -> OfflineWorld:
    return OfflineWorld(tmp_path)


def first() -> pa.Table:
    return pa.table({"id": [1, 2], "event": at(0, 0), "n": [HUGE, 2]}, schema=SCHEMA)


def later() -> pd.DataFrame:
    """Return rows as pandas makes them: integers beside a null are floats, columns in another order."""
    return pd.DataFrame({"n": [30.0, None], "event": [START + HOUR] * 2, "id": [1, 2]})


def in_a_file(offline_world: OfflineWorld) -> Any:  # noqa: ANN401 - any source
    offline_world.write("v.parquet", first())
    return offline_world.source()


def in_a_folder(offline_world: OfflineWorld) -> Any:  # noqa: ANN401 - any source
    offline_world.write("parts/deep/a.parquet", first())
    return offline_world.source("parts")


def in_a_glob(offline_world: OfflineWorld) -> Any:  # noqa: ANN401 - any source
    offline_world.write("parts/a.parquet", first())
    return offline_world.source("parts/*.parquet")


def in_partitions(offline_world: OfflineWorld) -> Any:  # noqa: ANN401 - any source
    for row in (0, 1):
        offline_world.write(f"hive/id={row + 1}/a.parquet", first().slice(row, 1).drop_columns(["id"]))
    return offline_world.source("hive")


def in_a_database(offline_world: OfflineWorld) -> Any:  # noqa: ANN401 - any source
    with duckdb.connect(str(offline_world.root / "wh.duckdb")) as connection:
        connection.register("rows", first())
        connection.execute("CREATE TABLE t AS FROM rows; CREATE VIEW seen AS FROM t")
    return DuckDBSource(path="wh.duckdb", table="t", timestamp_field="event")


def files(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*.parquet")}


@pytest.mark.parametrize("place", [in_a_file, in_a_folder, in_a_glob, in_partitions, in_a_database])
def test_appended_rows_are_read_with_the_others(
    offline_world: OfflineWorld, place: Callable[[OfflineWorld], Any]
) -> None:
    store = offline_world.open("skewless")
    store.apply([key(), offline_world.view(features={"n": Int64}, source=place(offline_world))])
    before = files(offline_world.root)
    store.write_to_offline_store("v", later())
    store.write_to_offline_store("v", later().assign(event=START + 2 * HOUR, n=[40, 50]))
    assert files(offline_world.root).items() >= before.items()
    frame: Any = entity_df([1, 2, 1, 2, 1, 2], [0, 0, 1, 1, 2, 2])
    found = store.get_historical_features(frame, ["v:n"]).to_arrow()
    assert found["n"].to_pylist() == [HUGE, 2, 30, None, 40, 50]
    assert list(offline_world.root.rglob("*.tmp")) == []


@pytest.mark.parametrize("file", ["trips.parquet", "a.parquet", "rows.parquet", "zone/a.parquet", "rows-x.y.parquet"])
def test_of_exact_ties_the_appended_row_wins(offline_world: OfflineWorld, file: str) -> None:
    offline_world.write(f"parts/{file}", first())
    store = offline_world.open("skewless")
    store.apply([key(), offline_world.view(features={"n": Int64}, source=offline_world.source("parts"))])
    frame: Any = entity_df([1], [0])
    for n in (30, 40):
        store.write_to_offline_store("v", later().assign(event=START, n=[n, n]))
        assert store.get_historical_features(frame, ["v:n"]).to_arrow()["n"].to_pylist() == [n]


@given(
    st.lists(
        st.none() | st.integers(0, 5) | st.text(st.characters(codec="utf-8", exclude_characters="/\0"), max_size=5)
    )
)
def test_a_new_file_sorts_after_the_existing_files(actions: list[str | int | None]) -> None:
    """Users add files (a text), skewless appends (none), and users delete files (a number)."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for action in actions:
            paths = sorted(folder.iterdir())
            if isinstance(action, str):
                (folder / f"{action}.parquet").touch()
            elif action is None:
                new = new_file_name(folder)
                assert all(path.name < new for path in paths)
                (folder / new).touch()
            elif action < len(paths):
                paths[action].unlink()


def test_rows_appended_to_a_file_are_part_of_the_source(offline_world: OfflineWorld) -> None:
    store = offline_world.open("skewless")
    store.apply([key(), offline_world.view(features={"n": Int64}, source=in_a_file(offline_world))])
    before = find_table(offline_world.root, "v.parquet", "source")
    store.write_to_offline_store("v", later())
    after = find_table(offline_world.root, "v.parquet", "source")
    assert [Path(file).parent.name for file in after.files] == [offline_world.root.name, "v.parquet.parts"]
    assert after.files[0] == before.files[0]
    assert after.fingerprint() != before.fingerprint()


def test_a_partition_of_text_is_written_as_text(offline_world: OfflineWorld) -> None:
    offline_world.write("hive/code=007/a.parquet", first().select(["id", "event"]))
    store = offline_world.open("skewless")
    store.apply([key(), offline_world.view(features={"code": String}, source=offline_world.source("hive"))])
    store.write_to_offline_store("v", later().assign(code=pd.Series(["007", None], dtype=object)).drop(columns="n"))
    frame: Any = entity_df([1, 1, 2, 2], [0, 1, 0, 1])
    assert store.get_historical_features(frame, ["v:code"]).to_arrow()["code"].to_pylist() == [
        "007",
        "007",
        "007",
        None,
    ]
    folders = {path.parent.name for path in (offline_world.root / "hive").rglob("*.parquet")}
    assert folders == {"code=007", "code=__HIVE_DEFAULT_PARTITION__"}


def test_rows_that_do_not_fit_are_refused_and_nothing_is_written(offline_world: OfflineWorld) -> None:
    store = offline_world.open("skewless")
    view = offline_world.view(features={"n": Int64}, source=in_a_file(offline_world))
    store.apply([key(), view])
    before = files(offline_world.root)
    with pytest.raises(SourceError, match=r"column 'n': does not fit the new rows.*got 'double'"):
        store.write_to_offline_store("v", later().assign(n=[0.5, 1.0]))
    columns = first().rename_columns(["id", "event", "m"])
    with pytest.raises(SourceError, match=r"has other columns than the new rows .*got 'm, n'"):
        SkewlessOfflineStore.offline_write_batch(store.config, view, columns, None)
    assert files(offline_world.root) == before


def test_sources_that_cannot_be_appended_to_say_so(offline_world: OfflineWorld) -> None:
    (offline_world.root / "v.csv").write_text("id,event,n\n1,2024-01-01T00:00:00Z,1\n")
    in_a_database(offline_world)
    store = offline_world.open("skewless")
    seen = DuckDBSource(path="wh.duckdb", table="seen", timestamp_field="event")
    views = [
        offline_world.view("c", features={"n": Int64}, source=offline_world.source("v.csv")),
        offline_world.view("d", features={"n": Int64}, source=seen),
    ]
    store.apply([key(), *views])
    with pytest.raises(SourceError, match="is CSV, to which rows cannot be appended"):
        store.write_to_offline_store("c", later())
    with pytest.raises(
        SourceError, match=r"table 'seen' of database '.*wh.duckdb': cannot be written: .*seen is not a"
    ):
        store.write_to_offline_store("d", later())


STORAGES: dict[str, Callable[[OfflineWorld], SavedDatasetStorage]] = {
    "file": lambda _: SavedDatasetFileStorage(path="saved/set.parquet"),
    "folder": lambda offline_world: SavedDatasetFileStorage(path=str(offline_world.root / "saved/set")),
}


@pytest.mark.parametrize("name", STORAGES)
def test_a_saved_dataset_comes_back(offline_world: OfflineWorld, name: str) -> None:
    store = offline_world.open("skewless")
    store.apply([key(), offline_world.view(features={"n": Int64}, source=in_a_file(offline_world))])
    storage = STORAGES[name](offline_world)

    def save(rows: Any, *, overwrite: bool = False) -> Any:  # noqa: ANN401 - Feast's
        job = store.get_historical_features(rows, ["v:n"], full_feature_names=True)
        return store.create_saved_dataset(job, "mine", storage, allow_overwrite=overwrite)

    rows = entity_df([1, 2, 3], [0, 1, 2])
    assert save(rows).to_arrow()["v__n"].to_pylist() == [HUGE, 2, None]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        save(rows)
    save(rows.iloc[:2], overwrite=True)
    again = offline_world.open("skewless").get_saved_dataset("mine").to_arrow()
    assert again.column_names == ["id", "v__n", "event_timestamp"]
    assert again["v__n"].to_pylist() == [HUGE, 2]
    assert again["event_timestamp"].to_pylist() == [START, START + HOUR]


@pytest.mark.parametrize("partition_by", [None, ["__log_date"]])
def test_logs_of_served_features_are_appended_and_read(
    offline_world: OfflineWorld, partition_by: list[str] | None
) -> None:
    store = offline_world.open("skewless")
    view = offline_world.view(features={"n": Int64}, source=in_a_file(offline_world))
    logging = LoggingConfig(destination=FileLoggingDestination(path="logs", partition_by=partition_by))
    service = FeatureService(name="s", features=[view], logging_config=logging)
    store.apply([key(), view, service])
    columns = ["id", "v__n", "v__n__timestamp", "v__n__status", "__log_timestamp", "__log_date", "__request_id"]
    types = [
        pa.int64(),
        pa.int64(),
        SCHEMA.field("event").type,
        pa.int32(),
        SCHEMA.field("event").type,
        pa.date32(),
        pa.string(),
    ]
    for hour in (1, 30):
        moment = START + hour * HOUR
        values = [hour, None, START, 1, moment, moment.date(), "r"]
        logs = pa.table([pa.array([value], kind) for value, kind in zip(values, types, strict=True)], names=columns)
        pq.write_table(logs, offline_world.root / "part.parquet")
        store.write_logged_features(logs if hour == 1 else offline_world.root / "part.parquet", service)
    job = store._get_provider().retrieve_feature_service_logs(
        service, START, START + 31 * HOUR, store.config, store.registry
    )
    found = job.to_arrow()
    assert sorted(found["id"].to_pylist()) == [1, 30]
    assert sorted(found.column_names) == sorted(columns)
    assert len(files(offline_world.root / "logs")) == 2


def test_a_source_in_a_database_survives_the_registry(offline_world: OfflineWorld) -> None:
    source = DuckDBSource(
        path="wh.duckdb",
        table='"odd.s".t',
        name="t",
        timestamp_field="event",
        created_timestamp_column="created",
        field_mapping={"raw": "x"},
        description="rows",
        tags={"a": "b"},
        owner="us",
    )
    store = offline_world.open("skewless")
    store.apply([key(), offline_world.view(features={"x": Float64}, source=source)])
    found = offline_world.open("skewless").get_feature_view("v").batch_source
    assert isinstance(found, DuckDBSource)
    assert found == source
    assert (found.path, found.get_table_query_string()) == (source.path, '"odd.s".t')
    assert found != DuckDBSource(path="wh.duckdb", table="t", name="t")


def test_columns_of_a_table_in_a_database_are_inferred(offline_world: OfflineWorld) -> None:
    with duckdb.connect(str(offline_world.root / "wh.duckdb")) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('up'); CREATE TABLE t (id BIGINT, event TIMESTAMPTZ, m mood)")
        connection.execute("ALTER TABLE t ADD COLUMN l DOUBLE[]; ALTER TABLE t ADD COLUMN d DECIMAL(9, 2)")
    source = DuckDBSource(path="wh.duckdb", table="t", timestamp_field="event")
    config = offline_world.open("skewless").config
    source.validate(config)
    with pytest.raises(SourceError, match=r"source 'w': has no such column .got 'when'.*id, event, m, l, d"):
        DuckDBSource(path="wh.duckdb", table="t", name="w", timestamp_field="when").validate(config)
    found = dict(source.get_table_column_names_and_types(config))
    assert found == {
        "id": "int64",
        "event": "timestamp[us, tz=UTC]",
        "m": "string",
        "l": "list<item: double>",
        "d": "double",
    }
    infer = source.source_datatype_to_feast_value_type()
    assert [infer(kind).name for kind in found.values()] == [
        "INT64",
        "UNIX_TIMESTAMP",
        "STRING",
        "DOUBLE_LIST",
        "DOUBLE",
    ]
