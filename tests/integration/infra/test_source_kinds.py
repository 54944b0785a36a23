"""Every kind of source gives the bits that one Parquet file gives, through the real materialisation."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.plan import View
from skewless.contract.rows import ViewRead
from skewless.infra.reads.offline.database_table import DatabaseTable, parse_database_address
from skewless.infra.reads.offline.source_columns import check_columns
from skewless.infra.reads.offline.sources import view_table
from tests.worlds.latest import HOUR, LatestRedisWorld, same, times
from tests.worlds.plans import make_view

N = 200
KEYS = {"id": DType.INT64, "shop": DType.STRING}
FEATURES = {
    "x": DType.FLOAT64,
    "single": DType.FLOAT32,
    "n": DType.INT64,
    "small": DType.INT32,
    "ok": DType.BOOL,
    "word": DType.STRING,
    "at": DType.TIMESTAMP,
}


@pytest.fixture
def worlds(tmp_path: Path, server_url: str) -> tuple[LatestRedisWorld, LatestRedisWorld]:
    # A project is named after its folder, and each test has a project of its own.
    plain, other = (
        LatestRedisWorld(root=tmp_path / f"{tmp_path.name}-{name}", url=server_url) for name in ("plain", "other")
    )
    other.root.mkdir()
    return plain, other


def rows() -> pa.Table:
    """Return three rows for each of many keys, every column with nulls, numbers at their edges."""
    rng = np.random.default_rng(3)
    hours = pa.array(rng.integers(0, 90, N) * HOUR + rng.integers(0, HOUR, N), pa.int64())
    holes = [rng.random(N) < 0.2 for _ in FEATURES]
    whole = rng.integers(-(2**62), 2**62, N) * 2 + 1
    columns = [
        pa.array(np.where(rng.random(N) < 0.1, -0.0, rng.normal(0, 1e9, N)), mask=holes[0]),
        pa.array(rng.normal(0, 1, N).astype(np.float32), mask=holes[1]),
        pa.array(whole, mask=holes[2]),
        pa.array(rng.integers(-(2**31), 2**31, N).astype(np.int32), mask=holes[3]),
        pa.array(rng.random(N) < 0.5, mask=holes[4]),
        pa.array([f'w "{i}", it\'s\n日本' for i in range(N)], mask=holes[5]),
        pa.array(rng.integers(-(2**50), 2**50, N), pa.int64(), mask=holes[6]).cast(pa.timestamp("us", tz="UTC")),
    ]
    key = rng.integers(0, N // 3, N)
    return pa.table(
        {
            "id": pa.array(key + 2**53 + 1),
            "shop": pa.array([f"00{i % 7}" for i in key]),
            "event": hours.cast(pa.timestamp("us", tz="UTC")),
            "created": pc.add(hours, HOUR).cast(pa.timestamp("us", tz="UTC")),
            **dict(zip(FEATURES, columns, strict=True)),
        }
    )


def parts(root: Path, table: pa.Table) -> None:
    for i in range(3):
        place = root / f"parts/{i}"
        place.mkdir(parents=True)
        pq.write_table(table.take(pa.array(range(i, N, 3))), place / "part.parquet")


def partitioned(root: Path, table: pa.Table) -> None:
    day = pa.array([str(i % 3) for i in range(N)])
    partitioning = ds.partitioning(pa.schema([("shop", pa.string()), ("day", pa.string())]), flavor="hive")
    ds.write_dataset(table.append_column("day", day), root / "hive", format="parquet", partitioning=partitioning)


def comma_separated(root: Path, table: pa.Table) -> None:
    pc_csv.write_csv(table, root / "v.csv")


def comma_separated_folder(root: Path, table: pa.Table) -> None:
    (root / "csv").mkdir()
    pc_csv.write_csv(table.slice(0, N // 2), root / "csv/a.csv")
    pc_csv.write_csv(table.slice(N // 2), root / "b.csv")
    (root / "csv/b.csv.gz").write_bytes(gzip.compress((root / "b.csv").read_bytes()))


def beside(root: Path, table: pa.Table) -> None:
    (root / "w.parquet.parts").mkdir()
    pq.write_table(table.slice(0, 50), root / "w.parquet")
    pq.write_table(table.slice(50, 100), root / "w.parquet.parts/rows-000000-a.parquet")
    pq.write_table(table.slice(150), root / "w.parquet.parts/rows-000001-b.parquet")


def database(root: Path, table: pa.Table) -> None:
    with duckdb.connect(str(root / "wh#1.duckdb")) as connection:
        connection.register("rows", table)
        connection.execute('CREATE TABLE v AS FROM rows; CREATE SCHEMA "odd.s"')
        connection.execute('CREATE TABLE "odd.s"."the ""table" AS FROM rows; CREATE VIEW seen AS SELECT * FROM v')


KINDS: dict[str, tuple[Callable[[Path, pa.Table], None], str]] = {
    "folder": (parts, "parts"),
    "glob": (parts, "parts/*/part.parquet"),
    "recursive glob": (parts, "parts/**/*.parquet"),
    "partitions": (partitioned, "hive"),
    "partitions by glob": (partitioned, "hive/*/*/*.parquet"),
    "parts beside": (beside, "w.parquet"),
    "csv": (comma_separated, "v.csv"),
    "csv folder": (comma_separated_folder, "csv"),
    "table": (database, DatabaseTable(path="wh#1.duckdb", table="v").address),
    "table of a schema": (database, DatabaseTable(path="wh#1.duckdb", table='"odd.s"."the ""table"').address),
    "view": (database, DatabaseTable(path="wh#1.duckdb", table="main.seen").address),
}


def filled(world: LatestRedisWorld, view: View, keys: list[list[int | str | None]]) -> ViewRead:
    world.run(view)
    read = world.online(view, *keys)
    assert same(read, world.offline(view, *keys))
    return read


def keys_of(table: pa.Table) -> list[list[int | str | None]]:
    return [list(key.values()) for key in table.select(list(KEYS)).to_pylist()]


@pytest.fixture(scope="module")
def of_one_file(tmp_path_factory: pytest.TempPathFactory, server_url: str) -> ViewRead:
    """What one Parquet file gives."""
    table, root = rows(), tmp_path_factory.mktemp("one-file")
    plain = LatestRedisWorld(root=root, url=server_url)
    plain.write("v.parquet", {name: table[name] for name in table.column_names})
    return filled(plain, make_view(keys=KEYS, features=FEATURES), keys_of(table))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_bits_of_one_parquet_file(
    worlds: tuple[LatestRedisWorld, LatestRedisWorld], of_one_file: ViewRead, kind: str
) -> None:
    table, (write, path) = rows(), KINDS[kind]
    _, other = worlds
    write(other.root, table)
    view, keys = make_view(keys=KEYS, features=FEATURES), keys_of(table)
    found = filled(other, replace(view, source=replace(view.source, path=path)), keys)
    assert same(of_one_file, found)
    assert found.has_row.all()
    assert [report.accepted for report in other.run(replace(view, source=replace(view.source, path=path)))] == [0]


def test_rows_appended_to_a_database_come_with_the_next_run(worlds: tuple[LatestRedisWorld, LatestRedisWorld]) -> None:
    _, world = worlds
    database(world.root, rows())
    view = make_view(keys=KEYS, features=FEATURES, path=DatabaseTable(path="wh#1.duckdb", table="seen").address)
    assert world.accepted(view) == [N]
    with duckdb.connect(str(world.root / "wh#1.duckdb")) as connection:
        connection.execute("INSERT INTO v SELECT * REPLACE (event + INTERVAL 1 SECOND AS event) FROM v LIMIT 7")
    assert world.accepted(view) == [7]
    assert world.accepted(view) == [0]


def test_a_database_is_free_for_its_writer_after_each_run(worlds: tuple[LatestRedisWorld, LatestRedisWorld]) -> None:
    _, world = worlds
    database(world.root, rows())
    view = make_view(keys=KEYS, features=FEATURES, path=DatabaseTable(path="wh#1.duckdb", table="v").address)
    with world.connect() as connection:
        assert view_table(world.root, view).column_types(connection)["x"] == "DOUBLE"
        with duckdb.connect(str(world.root / "wh#1.duckdb")) as writer:
            writer.execute("CREATE TABLE more AS SELECT 1 AS x")


def test_a_database_that_is_being_written_is_refused_by_name(worlds: tuple[LatestRedisWorld, LatestRedisWorld]) -> None:
    _, world = worlds
    database(world.root, rows())
    view = make_view(path=DatabaseTable(path="wh#1.duckdb", table="v").address)
    with (
        duckdb.connect(str(world.root / "wh#1.duckdb")),
        pytest.raises(SourceError, match=r"source of view 'v': is open for writing in another process .got"),
    ):
        world.run(view)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("nothing", "source of view 'v': cannot be read: .*nothing does not exist.*create the table"),
        ("v", "source of view 'v': has no such column .got 'y'.*it has id, shop, event"),
    ],
)
def test_errors_of_a_database_name_what_is_wrong(
    worlds: tuple[LatestRedisWorld, LatestRedisWorld], table: str, message: str
) -> None:
    _, world = worlds
    database(world.root, rows())
    with pytest.raises(SourceError, match=message):
        world.run(make_view(features={"y": DType.FLOAT64}, path=DatabaseTable(path="wh#1.duckdb", table=table).address))


def test_a_file_that_is_no_database_is_refused(worlds: tuple[LatestRedisWorld, LatestRedisWorld]) -> None:
    _, world = worlds
    (world.root / "no.duckdb").write_bytes(b"no" * 9_999)
    with pytest.raises(SourceError, match=r"source of view 'v': cannot be read: .*not a valid DuckDB database"):
        world.run(make_view(path=DatabaseTable(path="no.duckdb", table="v").address))


def test_a_table_of_too_many_parts_is_refused() -> None:
    with pytest.raises(
        DefinitionError, match=r"has a table name that cannot be parsed .got 'a.b.c'.*write table, schema.table"
    ):
        DatabaseTable(path="w.duckdb", table="a.b.c")


def test_an_address_says_which_table_it_is() -> None:
    warehouse = DatabaseTable(path="data/a#b %.duckdb", table='"s#1"."t%"')
    assert parse_database_address(warehouse.address) == warehouse
    assert parse_database_address("data/trips.parquet") is None


def test_a_csv_value_that_does_not_fit_is_named_with_line_and_column(
    worlds: tuple[LatestRedisWorld, LatestRedisWorld],
) -> None:
    _, world = worlds
    (world.root / "v.csv").write_text("id,event,x\n1,1970-01-01T02:00:00Z,1.5\n2,1970-01-01T02:00:00Z,lots\n")
    with pytest.raises(SourceError, match=r"column 'x': cannot be read as DOUBLE on line 3 .got 'lots'"):
        world.run(make_view(created=None, path="v.csv"))


def test_booleans_where_a_number_belongs_are_called_booleans() -> None:
    message = r"column 'y': does not fit the declared type float64 .got 'BOOLEAN'.. Fix: write true as 1 and"
    with pytest.raises(SourceError, match=message):
        check_columns("t", {"y": "BOOLEAN"}, {"y": DType.FLOAT64})
    with pytest.raises(SourceError, match=r"does not fit the declared type bool .got 'DOUBLE'."):
        check_columns("t", {"y": "DOUBLE"}, {"y": DType.BOOL})


def test_an_integer_of_a_csv_file_is_never_rounded(worlds: tuple[LatestRedisWorld, LatestRedisWorld]) -> None:
    """DuckDB reads 1.5 as the integer 2: the rows of keys and features would be those of others."""
    _, world = worlds
    rows = ["1.5,7", "2,1.5", "3,2.0", "4,9007199254740993", "5,9223372036854775808"]
    lines = ["id,event,n", *(row.replace(",", ",1970-01-01T01:00:00Z,") for row in rows)]
    (world.root / "v.csv").write_text("\n".join(lines) + "\n")
    view = make_view(features={"n": DType.INT64}, created=None, path="v.csv")
    read = filled(world, view, [[1], [2], [3], [4], [5]])
    assert read.has_row.tolist() == [False, False, True, True, False]
    assert read.values["n"].tolist()[2:4] == [2, 9007199254740993]
    (world.root / "v.csv").write_text("id,event,n\n1,1970-01-01T01:00:00Z,0x10\n")
    with pytest.raises(SourceError, match=r"column 'n': cannot be read as an integer on line 2 .got '0x10'"):
        world.run(view)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "has no such column .got 'id'"), ("id,event\n1,1970-01-01T02:00:00Z\n", "has no such column .got 'x'")],
)
def test_a_csv_file_without_a_column_is_refused(
    worlds: tuple[LatestRedisWorld, LatestRedisWorld], content: str, message: str
) -> None:
    _, world = worlds
    (world.root / "v.csv").write_text(content)
    with pytest.raises(SourceError, match=message):
        world.run(make_view(created=None, path="v.csv"))


def test_a_partition_is_read_as_it_is_declared(worlds: tuple[LatestRedisWorld, LatestRedisWorld]) -> None:
    _, world = worlds
    for code in ("007", "8"):
        world.write(f"hive/code={code}/a.parquet", {"id": [int(code)], "event": times(HOUR)})
    view = make_view(features={"code": DType.STRING}, created=None, path="hive")
    assert filled(world, view, [[7], [8]]).values["code"].tolist() == ["007", "8"]


def test_csv_is_read_as_it_is_declared_and_not_as_it_looks(worlds: tuple[LatestRedisWorld, LatestRedisWorld]) -> None:
    _, world = worlds
    lines = ["id,event,word,small,big", "007,1970-01-01T01:00:00Z,1.50,1,9007199254740993"]
    (world.root / "v.csv").write_text("\n".join([*lines, "8,1970-01-01T01:00:00Z,true,,\n"]))
    features = {"word": DType.STRING, "small": DType.FLOAT32, "big": DType.INT64}
    read = filled(
        world, make_view(keys={"id": DType.STRING}, features=features, created=None, path="v.csv"), [["007"], ["8"]]
    )
    assert read.values["word"].tolist() == ["1.50", "true"]
    assert read.values["big"].tolist() == [2**53 + 1, 0]
    assert [read.nulls[name].tolist() for name in ("small", "big")] == [[False, True]] * 2


def test_folders_that_are_no_partitions_of_all_files_are_no_columns(
    worlds: tuple[LatestRedisWorld, LatestRedisWorld],
) -> None:
    _, world = worlds
    world.write("mixed/code=1/a.parquet", {"id": [1], "event": times(HOUR), "x": [1.0]})
    world.write("mixed/b.parquet", {"id": [2], "event": times(HOUR), "x": [2.0]})
    view = make_view(created=None, path="mixed")
    assert filled(world, view, [[1], [2]]).values["x"].tolist() == [1.0, 2.0]


def test_6_1_the_hash_of_a_view_over_files_stays_what_it_was() -> None:
    view = make_view(keys=KEYS, features=FEATURES, tombstone="gone", renamed={"x": "y"}, ttl_us=5)
    assert view.hash == "0a75a56c83891278"
    assert replace(view, source=replace(view.source, path="duckdb:w#v")).hash != view.hash


def test_1_1_nanoseconds_are_floored_in_every_kind(worlds: tuple[LatestRedisWorld, LatestRedisWorld]) -> None:
    _, world = worlds
    stamps = pa.array([-1, 1_999, 2_000], pa.int64()).cast(pa.timestamp("ns", tz="UTC"))
    world.write("v.parquet", {"id": [1, 2, 3], "event": stamps, "x": [1.0, 2.0, 3.0]})
    read = filled(world, make_view(created=None), [[1], [2], [3]])
    assert read.versions.event_ts.tolist() == [-1, 1, 2]


@pytest.mark.parametrize(
    ("created", "unit"),
    [
        pytest.param(created, unit, marks=[pytest.mark.soak] * ((created is None) != (unit == "us")))
        for created in (None, "created")
        for unit in ("s", "us", "ns")
    ],
)
def test_1_1_times_without_a_zone_are_utc_where_feast_asks(
    worlds: tuple[LatestRedisWorld, LatestRedisWorld], unit: str, created: str | None
) -> None:
    _, world = worlds
    view = make_view(created=created)
    with world.opened_job() as job:
        for hours in ((1, 2), (1, 2), (101, 2)):
            moments = times(*(hour * HOUR for hour in hours)).cast(pa.timestamp(unit))
            world.write("v.parquet", {"id": [1, 2], "event": moments, "created": moments, "x": [1.0, 2.0]})
            (report,) = job.run([view], naive_is_utc=True)
            assert report.accepted == {(1, 2): 2 - 2 * (world.clock.now_us() > 100 * HOUR), (101, 2): 1}[hours]
            world.clock.set(world.clock.now_us() + HOUR)
    assert world.online(view, [1], [2]).versions.event_ts.tolist() == [101 * HOUR, 2 * HOUR]
