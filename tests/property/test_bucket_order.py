"""A log whose rows are sorted by bucket reads as one whose rows are not, as a whole and task by task."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.buckets import find_buckets, split_buckets
from skewless.contract.columns import Column
from skewless.infra.ingest.materialization.latest_rows import LatestRows
from skewless.infra.log.bucket_order import BucketOrder, BucketRange
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.join import Order
from skewless.infra.reads.offline.views import LogSnapshot, OfflineViews
from skewless.infra.reads.offline.window_join import WindowJoin
from tests.property.fewer import FEWER, FEWEST
from tests.property.test_join import ASKS, BATCHES, VIEW, EntityTime, batches, entities, write
from tests.property.test_window_join import CASES, PLACES, packed, same
from tests.windows.cases import Key, WindowCase
from tests.windows.oracle import counts_by
from tests.worlds.latest import state_folder

COUNT = 64
ORDERS: tuple[Order, ...] = ("event_time", "knowledge", "finished", "started")
BLOCKS, TASKS = st.integers(1, 9), st.sampled_from([1, 2, 5])


def order_of(keys: tuple[Column, ...], block_rows: int, count: int = COUNT) -> BucketOrder:
    return BucketOrder(keys=keys, buckets=count, block_rows=block_rows, group_rows=2)


def ranges_of(tasks: int) -> list[BucketRange]:
    return [BucketRange(first=first, end=end, count=COUNT) for first, end in split_buckets(COUNT, tasks)]


def places_in(rows: pa.Table, keys: tuple[Column, ...], buckets: BucketRange) -> list[int]:
    """Return the numbers of the rows of some buckets."""
    found = find_buckets([rows[key.name] for key in keys], COUNT)
    return np.flatnonzero((found >= buckets.first) & (found < buckets.end)).tolist()


# The order of other keys, or of another number of buckets, must not be taken for that of the task.
@FEWER
@given(case=CASES, rows=BLOCKS, tasks=TASKS, is_other=st.sampled_from(["", "", "keys", "count"]))
def test_windows(connection: duckdb.DuckDBPyConnection, case: WindowCase, rows: int, tasks: int, is_other: str) -> None:
    keys = case.view.keys if is_other != "keys" else case.view.logged_inputs[:1]
    order = order_of(keys, rows, 7 if is_other == "count" else COUNT)
    with tempfile.TemporaryDirectory() as folder:
        parts = case.parts(Path(folder), order if order.can_sort(_schema_of(case)) else None)
        for buckets in ranges_of(tasks):
            places = places_in(case.entities, case.view.keys, buckets)
            own = replace(case, asks=[case.asks[i] for i in places], applied=[case.applied[i] for i in places])
            if not own.asks:
                continue
            join = WindowJoin(connection, buckets=buckets)
            same(own, join.read(own.view, parts, own.entities, mode="event_time"), lambda _row, _event: True)
            read = join.read(own.view, parts, own.entities, mode="knowledge")
            same(own, read, lambda row, event, own=own: counts_by(own.asks[row][1])(event))  # type: ignore[misc]
            applied = np.array(own.applied, np.int64).reshape(len(own.asks), len(parts))
            read = join.read_applied(own.view, parts, own.entities, applied)
            same(own, read, lambda row, event, own=own: event.seq <= own.applied[row][PLACES[event.partition]])  # type: ignore[misc]


@FEWER
@given(case=CASES, rows=BLOCKS, tasks=TASKS)
def test_states(connection: duckdb.DuckDBPyConnection, case: WindowCase, rows: int, tasks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain = case.parts(Path(folder) / "plain")
        sorted_parts = case.parts(Path(folder) / "sorted", order_of(case.view.keys, rows))
        m = max(t for _, t in case.asks)
        expected = packed(WindowJoin(connection), case, plain, m)
        assert packed(WindowJoin(connection), case, sorted_parts, m) == expected
        if not any(part.files for part in plain):
            return
        keys = WindowJoin(connection).read_keys(case.view, plain, {})
        found: dict[Key, bytes] = {}
        for buckets in ranges_of(tasks):
            own = keys.take(pa.array(places_in(keys, case.view.keys, buckets), pa.int64()))
            found |= packed(WindowJoin(connection, buckets=buckets), case, sorted_parts, m, own)
        assert found == expected


def _schema_of(case: WindowCase) -> pa.Schema:
    return case.entities.schema


@FEWEST
@given(st.data(), BATCHES, ASKS, BLOCKS, TASKS)
def test_latest_values(
    connection: duckdb.DuckDBPyConnection,
    data: st.DataObject,
    drawn: list[tuple[list[tuple[tuple[int, str], int, int | None, bool]], int]],
    asks: list[EntityTime],
    rows: int,
    tasks: int,
) -> None:
    with state_folder() as folder:
        write(folder, batches(drawn, 1), live_from=1)
        state, asked = ProjectState(folder), entities(asks).combine_chunks()
        log, views = PartitionLog(state, VIEW.partition), OfflineViews(state, connection)
        end = log.next_seq()
        mark = LogSnapshot(end=data.draw(st.integers(0, end)), run_id=views.ledger.last_finished())
        first = data.draw(st.integers(0, end))
        last = data.draw(st.integers(first, end + 1))
        expected = {order: views.find_positions(VIEW, asked, order, mark).tolist() for order in ORDERS}
        read, latest = read_rows(log, first, last), sent_rows(connection, log, None, first, last)
        # A part of the segments stays as it is.
        keep = data.draw(st.integers(0, len(drawn)))
        compact(log, keep=keep, target_rows=20, group=lambda _: "", order=order_of(VIEW.keys, rows))
        assert read_rows(log, first, last) == read
        assert sent_rows(connection, log, None, first, last) == latest
        for order in ORDERS:
            assert views.find_positions(VIEW, asked, order, mark).tolist() == expected[order]
        found = {order: [-2] * len(asks) for order in ORDERS}
        sent: list[tuple[bytes, bytes]] = []
        for buckets in ranges_of(tasks):
            places = places_in(asked, VIEW.keys, buckets)
            own, part = OfflineViews(state, connection, buckets), asked.take(pa.array(places, pa.int64()))
            sent += sent_rows(connection, log, buckets, first, last)
            for order in ORDERS:
                positions = own.find_positions(VIEW, part, order, mark)
                for place, position in zip(places, positions.tolist(), strict=True):
                    found[order][place] = position
                names = [SEQ, "order_y"]
                assert own.read_columns(VIEW, positions, names).equals(views.read_columns(VIEW, positions, names))
        assert found == expected
        assert sorted(sent) == latest
        Catalog(state.database).delete_unread(state.storage)


def read_rows(log: PartitionLog, first: int, last: int) -> list[str]:
    """Return the rows at some positions; NaN is not equal to itself, but its text is."""
    return [str(row) for part in log.read(first, last) for row in part.to_pylist()]


def sent_rows(
    connection: duckdb.DuckDBPyConnection, log: PartitionLog, buckets: BucketRange | None, first: int, last: int
) -> list[tuple[bytes, bytes]]:
    """Return what is written to the online store for some positions."""
    rows = LatestRows(project="p", view=VIEW, log=log, connection=connection, buckets=buckets)
    batches_sent = list(rows.batches(first, min(last, log.next_seq() - 1)))
    return sorted(
        pair for keys, values, _ in batches_sent for pair in zip(keys.to_pylist(), values.to_pylist(), strict=True)
    )


@pytest.mark.parametrize("key", ["id", "other"])
def test_a_task_reads_few_row_groups(tmp_path: Path, key: str) -> None:
    """Compaction writes a large segment again alone, also one of the latest, and a task skips most of its rows."""
    state = ProjectState(tmp_path)
    log, keys = PartitionLog(state, "batch/v-0123456789abcdef"), (VIEW.keys[0],)
    n = 40_000
    log.append(pa.table({"id": pa.array(np.arange(n) % 5_000), "other": pa.array(np.arange(n)), "x": np.ones(n)}))
    order = BucketOrder(keys=(replace(VIEW.keys[0], name=key),), buckets=4_096, block_rows=20_000, group_rows=1_000)
    assert compact(log, keep=60, target_rows=50_000, group=lambda _: "", order=order).rows == n
    assert compact(log, keep=60, target_rows=50_000, group=lambda _: "", order=order).rows == 0
    assert [segment.is_merged for segment in log.segments()] == [True]
    (file,) = log.files()
    buckets = BucketRange(first=256, end=512, count=4_096)
    assert buckets.is_order_of(file, keys) == (key == "id")
    assert pa.concat_tables(log.read(columns=[SEQ]))[SEQ].to_pylist() == list(range(n))
    if key == "id":
        with pq.ParquetFile(file) as opened:
            assert opened.num_row_groups == 40
            assert len(buckets.select_groups(opened)) <= 2 * 3
