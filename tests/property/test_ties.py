"""SEMANTICS 2.1: of rows that tie in key, event time and created time the later in file order wins, everywhere."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.plan import View
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.join import Order
from tests.property.fewer import FEWEST
from tests.worlds.latest import LatestWorld, seen
from tests.worlds.plans import make_view

SECOND = 1_000_000
NOW = 100 * SECOND
KEYS = range(3)
ORDERS: tuple[Order, ...] = ("event_time", "knowledge")
Row = tuple[int, int, int | None, int, bool]  # id, event time, created time, x, gone; seconds

ROW = st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([None, 5, 6]), st.integers(0, 9), st.booleans())
FILES = st.dictionaries(st.sampled_from(["a", "b", "b0", "c/a", "z"]), st.lists(ROW, max_size=12), max_size=4)


def table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a source has them."""
    ids, events, created, values, gone = ([row[i] for row in rows] for i in range(5))
    stamp = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "event": pa.array([at * SECOND for at in cast("list[int]", events)], pa.int64()).cast(stamp),
            "created": pa.array([None if at is None else at * SECOND for at in created], pa.int64()).cast(stamp),
            "x": pa.array(values, pa.int64()),
            "gone": pa.array(gone, pa.bool_()),
        }
    )


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    pq.write_table(table(rows), path.with_suffix(".parquet"), row_group_size=4)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    texts = [
        f"{i},1970-01-01T00:00:0{event}Z,{'' if created is None else f'1970-01-01T00:00:0{created}Z'},{x},{gone}"
        for i, event, created, x, gone in rows
    ]
    # A first row whose times are there: an empty column of text has no type.
    first = ["id,event,created,x,gone", "9,1970-01-01T00:00:00Z,1970-01-01T00:00:00Z,0,False"]
    path.with_suffix(".csv").write_text("\n".join([*first, *texts]) + "\n")


KINDS: dict[str, tuple[str, Callable[[Path, Sequence[Row]], None]]] = {
    "parquet": ("src", write_parquet),
    "csv": ("src", write_csv),
}


def view_of(path: str) -> View:
    return make_view(features={"x": DType.INT64}, path=path, tombstone="gone")


def everywhere(world: LatestWorld, view: View, keys: Sequence[int] = KEYS) -> list[list[int | None]]:
    """Run, and return ``x`` of each key a second later as training in both time modes and the online store have it."""
    world.run(view)
    t_us, asked = world.clock.now_us() + SECOND, [[key] for key in keys]
    past = [world.offline(view, *asked, t=t_us, order=order) for order in ORDERS]
    return [[value for _, value in seen(view, read, t_us)] for read in [*past, world.online(view, *asked)]]


def newest(log: Sequence[Row], key: int) -> int | None:
    """Return by plain Python what stands in the end: of ties the last."""
    best: Row | None = None
    for row in log:
        if row[0] == key and (best is None or rank(row) >= rank(best)):
            best = row
    return None if best is None or best[4] else best[3]


def rank(row: Row) -> tuple[int, int]:
    return row[1], -1 if row[2] is None else row[2]


def in_file_order(files: dict[str, list[Row]], suffix: str) -> list[Row]:
    names = sorted(files, key=lambda name: f"{name}{suffix}")
    return [row for name in names for row in files[name]]


@pytest.mark.parametrize("kind", KINDS)
@FEWEST
@given(first=FILES, second=FILES)
def test_2_1_ties_keep_file_order(
    connection: duckdb.DuckDBPyConnection, kind: str, first: dict[str, list[Row]], second: dict[str, list[Row]]
) -> None:
    """Files come, grow and change between two runs; rows that the log has are not new, and new ones come after it."""
    if not any(first.values()):
        return
    folder, write = KINDS[kind]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place).resolve()
        (root / folder / "c").mkdir(parents=True)
        world, view = LatestWorld(root=root, opened=connection), view_of(folder)
        log: list[Row] = []
        now: dict[str, list[Row]] = {}
        for number, files in enumerate((first, second)):
            for name, rows in files.items():
                now[name] = [*now.get(name, []), *rows] if len(rows) % 2 else rows or now.get(name, [])
            for name, rows in now.items():
                write(root / folder / name, rows)
            known = set(log)
            log += [row for row in in_file_order(now, f".{kind}") if row not in known]
            world.clock.set(NOW + number * SECOND)
            assert everywhere(world, view) == [[newest(log, key) for key in KEYS]] * 3


@pytest.mark.parametrize("what", [pytest.param("table", marks=pytest.mark.soak), "view"])
@FEWEST
@given(first=st.lists(ROW, min_size=1, max_size=30), second=st.lists(ROW, max_size=30))
def test_2_1_ties_of_a_database_keep_its_order(
    connection: duckdb.DuckDBPyConnection, what: str, first: list[Row], second: list[Row]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place).resolve()
        log: list[Row] = []
        world = LatestWorld(root=root, opened=connection)
        view = view_of(f"duckdb:w.duckdb#{'t' if what == 'table' else 'v'}")
        for number, rows in enumerate((first, second)):
            with duckdb.connect(str(root / "w.duckdb")) as database:
                new = table(rows)  # noqa: F841 - DuckDB finds it by its name
                database.execute("CREATE TABLE IF NOT EXISTS t AS FROM new LIMIT 0")
                database.execute("INSERT INTO t FROM new")
                database.execute("CREATE OR REPLACE VIEW v AS SELECT * FROM t ORDER BY rowid")
            known = set(log)
            log += [row for row in rows if row not in known]
            world.clock.set(NOW + number * SECOND)
            assert everywhere(world, view) == [[newest(log, key) for key in KEYS]] * 3


@pytest.mark.long
@pytest.mark.parametrize("kind", ["parquet", pytest.param("csv", marks=pytest.mark.soak)])
def test_2_1_many_ties_of_large_files_keep_file_order(kind: str, tmp_path: Path) -> None:
    """Several threads read: 400,000 rows of 5,000 keys that all tie, in two files."""
    n, keys = 200_000, 5_000
    rng = np.random.default_rng(7)
    ids = rng.integers(0, keys, (2, n))
    stamp = pa.array(np.zeros(n, dtype=np.int64)).cast(pa.timestamp("us", tz="UTC"))
    (tmp_path / "src").mkdir()
    for number, name in enumerate("ab"):
        values = np.arange(n) + number * n
        rows = pa.table({"id": ids[number], "event": stamp, "x": values})
        if kind == "parquet":
            pq.write_table(rows, tmp_path / f"src/{name}.parquet", row_group_size=20_000)
        else:
            texts = pa.array(np.full(n, "1970-01-01T00:00:00Z"))
            pc_csv.write_csv(rows.set_column(1, "event", texts), tmp_path / f"src/{name}.csv")
    view = make_view(features={"x": DType.INT64}, path="src", created=None)
    last = {int(key): place for place, key in enumerate(ids.reshape(-1))}
    with connect(tmp_path / "spill", threads=4) as connection:
        world = LatestWorld(root=tmp_path, opened=connection)
        assert everywhere(world, view, range(keys)) == [[last[key] for key in range(keys)]] * 3
