"""Reading windows from logs as they are found: empty, grown by a column, in pieces, and questions of any shape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.dtypes import DType
from skewless.contract.windows.hops import SECOND
from skewless.contract.windows.view import Aggregate, Function, WindowView
from skewless.infra.log.log_columns import EVENT, REJECT, SEQ
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.window_events import LogPartition
from skewless.infra.reads.offline.window_join import WindowJoin
from tests.worlds.plans import columns

NO_ENDS = pa.table({name: pa.array([], pa.int64()) for name in ("first", "last", "ended_us")})


@pytest.fixture
def join(tmp_path: Path) -> Iterator[WindowJoin]:
    with connect(tmp_path / "spill", threads=1) as connection:
        yield WindowJoin(connection)


def view_of(*functions: Function, dtype: DType = DType.FLOAT64) -> WindowView:
    return WindowView(
        name="v",
        keys=columns({"id": DType.INT64}),
        source="s",
        event_column="ts",
        inputs=columns({"x": dtype}),
        aggregates=tuple(
            Aggregate(name=function, column="x", function=function, window_us=20 * SECOND, hop_us=5 * SECOND)
            for function in functions
        ),
    )


def asked(*rows: tuple[int | None, int]) -> pa.Table:
    return pa.table(
        {"id": pa.array([key for key, _ in rows], pa.int64()), "__t": pa.array([t for _, t in rows], pa.int64())}
    )


def part(folder: Path, name: str = "p", **columns: pa.Array) -> LogPartition:
    """Write one file of accepted events, at seconds 0, 1, ..; more columns are of the file."""
    n = len(next(iter(columns.values())))
    table = pa.table(
        {
            **columns,
            EVENT: pa.array(np.arange(n) * SECOND),
            SEQ: pa.array(np.arange(n)),
            REJECT: pa.nulls(n, pa.string()),
        }
    )
    path = folder / f"{name}.parquet"
    pq.write_table(table, path)
    return LogPartition(partition=name, files=[str(path)], ends=NO_ENDS)


@pytest.mark.parametrize("parts", [[], [LogPartition(partition="p", files=[], ends=NO_ENDS)]])
def test_a_log_without_files_has_empty_windows(join: WindowJoin, parts: list[LogPartition]) -> None:
    view, entities = view_of(Function.COUNT, Function.SUM, Function.COUNT_DISTINCT), asked((1, 0), (None, 0))
    reads = [
        join.read(view, parts, entities, mode="event_time"),
        join.read(view, parts, entities, mode="knowledge"),
        join.read_applied(view, parts, entities, np.full((2, len(parts)), 5)),
    ]
    for read in reads:
        assert read.has_row.tolist() == [True, False]
        assert read.block is not None
        np.testing.assert_array_equal(read.block, [[0, np.nan, 0], [np.nan, np.nan, np.nan]])
    assert list(join.states(view, parts, 0)) == []


def test_a_part_without_files_is_one_of_which_nothing_was_applied(join: WindowJoin, tmp_path: Path) -> None:
    parts = [
        LogPartition(partition="empty", files=[], ends=NO_ENDS),
        part(tmp_path, id=pa.array([1, 1, 1]), x=pa.array([1.0] * 3)),
    ]
    read = join.read_applied(view_of(Function.COUNT), parts, asked((1, 9 * SECOND)), np.array([[-1, 1]]))
    assert read.values["count"].tolist() == [2.0]


def test_no_questions(join: WindowJoin, tmp_path: Path) -> None:
    parts = [part(tmp_path, id=pa.array([1]), x=pa.array([1.0]))]
    read = join.read(view_of(Function.COUNT), parts, asked(), mode="event_time")
    assert read.has_row.shape == (0,)
    applied = np.empty((0, 1), dtype=np.int64)
    assert join.read_applied(view_of(Function.COUNT), parts, asked(), applied).has_row.shape == (0,)


def test_rows_keep_their_order_and_their_duplicates(join: WindowJoin, tmp_path: Path) -> None:
    parts = [part(tmp_path, id=pa.array([1, 2, 1, 1]), x=pa.array([1.0, 2.0, 4.0, 8.0]))]
    rows = [(2, 9), (1, 3), (None, 9), (1, 2), (3, 9), (1, 3), (1, 9)]
    table = pa.concat_tables([asked((key, t * SECOND)) for key, t in rows])
    read = join.read(view_of(Function.SUM), parts, table, mode="event_time")
    np.testing.assert_array_equal(read.values["sum"], [2, 5, np.nan, 1, np.nan, 5, 13])


def test_a_column_that_no_file_has_is_null(join: WindowJoin, tmp_path: Path) -> None:
    parts = [part(tmp_path, id=pa.array([1, 1]))]
    read = join.read(view_of(Function.COUNT, Function.MAX), parts, asked((1, 9 * SECOND)), mode="knowledge")
    assert read.values["count"].tolist() == [0.0]
    assert read.nulls["max"].tolist() == [True]


def test_a_column_that_came_later_is_null_before(join: WindowJoin, tmp_path: Path) -> None:
    old = part(tmp_path, "a", id=pa.array([1, 1, 1]))
    new = part(tmp_path, "b", id=pa.array([1, 1]), x=pa.array([5.0, 6.0]))
    both = LogPartition(partition="a", files=[*old.files, *new.files], ends=NO_ENDS)
    read = join.read(view_of(Function.COUNT), [both], asked((1, 9 * SECOND)), mode="event_time")
    assert read.values["count"].tolist() == [2.0]


def test_only_distincts_of_text(join: WindowJoin, tmp_path: Path) -> None:
    view = view_of(Function.COUNT_DISTINCT, dtype=DType.STRING)
    parts = [part(tmp_path, id=pa.array([1] * 4), x=pa.array(["a", "é", None, "a"]))]
    read = join.read(view, parts, asked((1, 9 * SECOND), (1, SECOND)), mode="event_time")
    assert read.values["count_distinct"].tolist() == [2.0, 1.0]
    applied = join.read_applied(view, parts, asked((1, 9 * SECOND)), np.array([[0]]))
    assert applied.values["count_distinct"].tolist() == [1.0]


def test_what_is_known_by_a_record_and_what_by_its_row(join: WindowJoin, tmp_path: Path) -> None:
    known = pa.array([30 * SECOND, None, None, None], pa.int64())
    written = part(tmp_path, id=pa.array([1] * 4), x=pa.array([1.0, 2.0, 4.0, 8.0]), __known_at=known)
    ends = pa.table({"first": [0, 2], "last": [1, 2], "ended_us": [5 * SECOND, 6 * SECOND]})
    parts = [LogPartition(partition="p", files=written.files, ends=ends)]
    view, times = view_of(Function.SUM), [5 * SECOND - 1, 5 * SECOND, 6 * SECOND, 19 * SECOND]
    read = join.read(view, parts, asked(*((1, t) for t in times)), mode="knowledge")
    np.testing.assert_array_equal(read.values["sum"], [np.nan, 2, 6, 6])


def test_states_are_those_of_entities_that_have_events_that_count(join: WindowJoin, tmp_path: Path) -> None:
    parts = [part(tmp_path, id=pa.array([1, None, 2, 1]), x=pa.array([1.0, 2.0, 4.0, 8.0]))]
    (keys, tiles), *others = join.states(view_of(Function.SUM), parts, 0)
    assert not others
    assert sorted(keys["id"].to_pylist()) == [1, 2]
    assert tiles.n == 2
    last = dict(zip(keys["id"].to_pylist(), tiles.slots.seq.tolist(), strict=True))
    assert last == {1: 3, 2: 2}


def test_an_iterator_of_states_that_is_closed_early_leaves_nothing_behind(tmp_path: Path) -> None:
    parts = [part(tmp_path, id=pa.array(np.arange(50_000) // 2), x=pa.array(np.ones(50_000)))]
    with connect(tmp_path / "spill", threads=1) as connection:
        states = WindowJoin(connection, chunk_rows=5_000).states(view_of(Function.SUM), parts, 0)
        keys, tiles = next(states)
        assert 0 < keys.num_rows == tiles.n < 25_000
        states.close()
        assert connection.sql("SHOW TABLES").fetchall() == []


def test_a_failure_while_events_are_read_is_shown_as_it_is(tmp_path: Path) -> None:
    good = part(tmp_path, id=pa.array(np.arange(50_000)), x=pa.array(np.ones(50_000)))
    ends = pa.table({"first": [0], "last": [50_000]})  # the log's own code never makes such
    parts = [LogPartition(partition="p", files=good.files, ends=ends)]
    with connect(tmp_path / "spill", threads=1) as connection:
        join = WindowJoin(connection, chunk_rows=5_000)
        with pytest.raises(KeyError, match="ended_us"):
            join.read(view_of(Function.SUM), parts, asked(*((key, 9) for key in range(50_000))), mode="knowledge")
        assert connection.sql("SHOW TABLES").fetchall() == []
        with pytest.raises(duckdb.CatalogException):
            connection.execute("FROM window_entities")
