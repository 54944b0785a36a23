"""A key with many events or rows is computed in parts: the bits of one part, in bounded memory."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.windows.codec import TileCodec
from skewless.infra.log.log_columns import EVENT, KNOWN_AT, REJECT, SEQ
from skewless.infra.reads.offline.window_events import LogPartition
from skewless.infra.reads.offline.window_join import WindowJoin
from skewless.infra.reads.offline.window_positions import rebuild_states
from tests.property.fewer import FEWER
from tests.property.test_window_join import CASES, PLACES, packed, same
from tests.windows.cases import ONE_KEY, Key, WindowCase
from tests.windows.oracle import counts_by

PARTS = st.integers(1, 5)


@FEWER
@given(case=CASES, rows=PARTS)
def test_features_of_parts(connection: duckdb.DuckDBPyConnection, case: WindowCase, rows: int) -> None:
    """SEMANTICS 3.6: chunks of a few events, and of a few entity rows of a key."""
    applied = np.array(case.applied, dtype=np.int64).reshape(len(case.asks), 2)
    with tempfile.TemporaryDirectory() as folder:
        join, parts = WindowJoin(connection, chunk_rows=rows), case.parts(Path(folder))
        same(case, join.read(case.view, parts, case.entities, mode="event_time"), lambda _row, _event: True)
        read = join.read(case.view, parts, case.entities, mode="knowledge")
        same(case, read, lambda row, event: counts_by(case.asks[row][1])(event))
        read = join.read_applied(case.view, parts, case.entities, applied)
        same(case, read, lambda row, event: event.seq <= case.applied[row][PLACES[event.partition]])


@FEWER
@given(case=CASES, rows=PARTS)
def test_states_of_parts(connection: duckdb.DuckDBPyConnection, case: WindowCase, rows: int) -> None:
    """SEMANTICS 3.7: the states of parts, merged, have the bytes of states of all events."""
    with tempfile.TemporaryDirectory() as folder:
        parts = case.parts(Path(folder))
        for m in {min(t for _, t in case.asks), max(t for _, t in case.asks)}:
            expected = packed(WindowJoin(connection), case, parts, m)
            # The number of events in a chunk is divided by the number of records that they may become.
            for chunk_rows in (rows, rows * (1 + len(case.view.hops))):
                assert packed(WindowJoin(connection, chunk_rows=chunk_rows), case, parts, m) == expected


@FEWER
@given(case=CASES, rows=PARTS)
def test_rebuilt_states_of_parts(connection: duckdb.DuckDBPyConnection, case: WindowCase, rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        parts, m = case.parts(Path(folder)), max(t for _, t in case.asks)
        keys = list(dict.fromkeys(key for key, _ in case.asks if None not in key))
        columns = {name.name: case.entities[name.name] for name in case.view.keys}
        distinct = pa.table(columns).drop_null().group_by(list(columns), use_threads=False).aggregate([])
        found: list[dict[Key, bytes]] = []
        for size in (250_000, rows):
            patch.setattr("skewless.infra.reads.offline.window_positions._REBUILT_ROWS", size)
            names = [tuple(row.values()) for row in distinct.to_pylist()]
            states: dict[Key, bytes] = {}
            for numbers, tiles in rebuild_states(connection, case.view, parts, distinct, m) if keys else ():
                packed_rows = TileCodec(case.view).pack(tiles).to_pylist()
                states |= dict(zip([names[i] for i in numbers], packed_rows, strict=True))
            found.append(states)
        # An empty state is rolled up only if its key is between others of a chunk, so its time depends on the chunks.
        with_events = {event.key for event in case.events}
        whole, cut = ({key: each[key] for key in each if key in with_events} for each in found)
        assert whole == cut
        assert set(found[0]) == set(found[1]) == set(keys)


def test_memory_does_not_grow_with_the_events_of_a_key(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """All events are of one key, and within the windows of all rows."""
    join, asked, peaks = WindowJoin(connection, chunk_rows=5_000), hot_rows(50), []
    parts = [write_hot_key(tmp_path / f"{n}.parquet", n) for n in (20_000, 80_000)]
    for part in parts:
        tracemalloc.start()
        join.read(ONE_KEY, [part], asked, mode="event_time")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]
    large = parts[1]
    whole = WindowJoin(connection).read(ONE_KEY, [large], asked, mode="event_time")
    read = join.read(ONE_KEY, [large], asked, mode="event_time")
    assert whole.block is not None
    assert read.block is not None
    assert whole.block.tobytes() == read.block.tobytes()


def write_hot_key(path: Path, n: int) -> LogPartition:
    """Write n events of one key within 15 seconds."""
    rng = np.random.default_rng(7)
    ts = rng.integers(0, 15_000_000, n)
    table = pa.table(
        {
            "id": np.full(n, 3),
            "s": pa.array(rng.choice(["u", "v", ""], n)),
            "x": np.round(rng.normal(size=n), 3),
            "y": rng.normal(size=n),
            "n": rng.integers(-(2**53), 2**53, n),
            EVENT: ts,
            SEQ: np.arange(n),
            REJECT: pa.nulls(n, pa.string()),
            KNOWN_AT: ts + rng.choice([0, 1_000_000], n),
        }
    )
    pq.write_table(table, path)
    ends = pa.table({name: pa.array([], pa.int64()) for name in ("first", "last", "ended_us")})
    return LogPartition(partition="events/s/ab/0", files=[str(path)], ends=ends)


def hot_rows(n: int) -> pa.Table:
    return pa.table({"id": np.full(n, 3), "__t": np.linspace(10_000_000, 15_000_001, n).astype(np.int64)})
