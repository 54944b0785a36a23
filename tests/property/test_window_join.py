"""SEMANTICS 3.1 to 3.8: windows from the log, from the online state and by brute force, bit for bit."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.rows import ViewRead
from skewless.contract.window_events import EventSelector
from skewless.contract.windows.codec import TileCodec
from skewless.contract.windows.hops import SECOND
from skewless.contract.windows.state_layout import EventOrigins, StateLayout
from skewless.contract.windows.tiles import Roller, Tiles
from skewless.contract.windows.window_reader import WindowReader
from skewless.infra.reads.offline.window_events import LogPartition
from skewless.infra.reads.offline.window_join import WindowJoin
from tests.property.fewer import FEWER
from tests.windows.cases import INTEGERS, ONE_KEY, PAIRS, PARTITIONS, TWO_KEYS, Key, WindowCase, cases
from tests.windows.log import LoggedEvent, bits, column_of, signed
from tests.windows.oracle import Event, Value, counts_by, features

CASES = cases(ONE_KEY, INTEGERS) | cases(TWO_KEYS, PAIRS)
PLACES = {signed(name): place for place, name in enumerate(PARTITIONS)}


@FEWER
@given(case=CASES)
def test_event_time(connection: duckdb.DuckDBPyConnection, case: WindowCase) -> None:
    with tempfile.TemporaryDirectory() as folder:
        read = WindowJoin(connection).read(case.view, case.parts(Path(folder)), case.entities, mode="event_time")
    same(case, read, lambda _row, _event: True)


@FEWER
@given(case=CASES)
def test_knowledge(connection: duckdb.DuckDBPyConnection, case: WindowCase) -> None:
    with tempfile.TemporaryDirectory() as folder:
        read = WindowJoin(connection).read(case.view, case.parts(Path(folder)), case.entities, mode="knowledge")
    same(case, read, lambda row, event: counts_by(case.asks[row][1])(event))


@FEWER
@given(case=CASES)
def test_applied(connection: duckdb.DuckDBPyConnection, case: WindowCase) -> None:
    applied = np.array(case.applied, dtype=np.int64).reshape(len(case.asks), len(PARTITIONS))
    with tempfile.TemporaryDirectory() as folder:
        read = WindowJoin(connection).read_applied(case.view, case.parts(Path(folder)), case.entities, applied)
    same(case, read, lambda row, event: event.seq <= case.applied[row][PLACES[event.partition]])


@FEWER
@given(case=CASES)
def test_pinned_log(connection: duckdb.DuckDBPyConnection, case: WindowCase) -> None:
    last = case.applied[0][0]
    with tempfile.TemporaryDirectory() as folder:
        read = WindowJoin(connection).read(
            case.view, case.parts(Path(folder)), case.entities, mode="event_time", upto={PARTITIONS[0]: last}
        )
    same(case, read, lambda _row, event: PLACES[event.partition] == 1 or event.seq <= last)


@FEWER
@given(case=CASES)
def test_bootstrapped_state(connection: duckdb.DuckDBPyConnection, case: WindowCase) -> None:
    times, reader = sorted({t // 1_000 * 1_000 for _, t in case.asks}), WindowReader(case.view)
    with tempfile.TemporaryDirectory() as folder:
        parts = case.parts(Path(folder))
        for m in {times[0], times[-1]}:
            states = packed(WindowJoin(connection), case, parts, m)
            for t in (t for t in times if t >= m):
                online(case, states, t, reader)


@given(case=CASES, order=st.randoms(use_true_random=False), steps=st.lists(st.integers(0, 90), max_size=3))
def test_online_state_in_any_order(case: WindowCase, order: random.Random, steps: list[int]) -> None:
    events = list(case.events)
    order.shuffle(events)
    t = max(t for _, t in case.asks) // 1_000 * 1_000
    keys = list(dict.fromkeys(event.key for event in events))
    layout, roller, codec = StateLayout(case.view), Roller(case.view), TileCodec(case.view)
    origin = EventOrigins(
        ts=np.array([event.ts for event in events], dtype=np.int64),
        partition=np.array([event.partition for event in events], dtype=np.int64),
        seq=np.array([event.seq for event in events], dtype=np.int64),
    )
    seen = EventSelector(case.view).select(table_of(case, events), origin)
    entity = np.array([keys.index(events[row].key) for row in seen.rows], dtype=np.int64)
    tiles = Tiles.from_events(layout, len(keys), entity, seen.origin, seen.words, seen.hashes)
    for step in steps:
        tiles = codec.unpack(codec.pack(roller.roll(tiles, t - step * SECOND)).to_pylist())
    online(case, dict(zip(keys, codec.pack(tiles).to_pylist(), strict=True)), t)


@pytest.mark.long
def test_hot_keys_in_small_chunks(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """SEMANTICS 3.6: windows of a thousand events, over many chunks, are those of the online state."""
    case = hot_case(random.Random(11))
    join, parts = WindowJoin(connection, chunk_rows=500), case.parts(tmp_path)
    applied = np.array(case.applied, dtype=np.int64)
    reads = (
        (join.read(case.view, parts, case.entities, mode="event_time"), lambda _row, _event: True),
        (
            join.read(case.view, parts, case.entities, mode="knowledge"),
            lambda row, event: counts_by(case.asks[row][1])(event),
        ),
        (
            join.read_applied(case.view, parts, case.entities, applied),
            lambda row, event: event.seq <= case.applied[row][PLACES[event.partition]],
        ),
    )
    for read, counts in reads:
        same(case, read, counts)
    t = max(t for _, t in case.asks) // 1_000 * 1_000
    online(case, packed(join, case, parts, t - 30 * SECOND), t)


def hot_case(rng: random.Random) -> WindowCase:
    """Return a log of 2,000 events of four keys within two minutes."""

    def row(partition: int) -> LoggedEvent:
        ts = rng.randrange(120 * SECOND)
        x = round(rng.gauss(0, 100), 2)
        values: dict[str, Value] = {"x": x, "y": x, "n": int(x), "s": f"{x:.0f}"}
        delay = rng.choice([0, 0, 0, 5, 500, 40_000]) * 1_000 if partition else 70 * SECOND
        return LoggedEvent(key=(rng.choice([1, 1, 1, 2, 3, 4]),), ts=ts, values=values, recorded=ts + delay)

    rows = [[row(partition) for _ in range(1_000)] for partition in (0, 1)]
    asks: list[tuple[Key, int]] = [((rng.randrange(1, 6),), rng.randrange(121 * SECOND)) for _ in range(15)]
    applied = [[rng.randrange(-1, 1_000), rng.randrange(950, 1_000)] for _ in asks]
    return WindowCase(view=ONE_KEY, rows=rows, ends=[[], []], cuts=[1_000, 1_000], asks=asks, applied=applied)


def same(case: WindowCase, read: ViewRead, counts: Callable[[int, Event], bool]) -> None:
    """Compare a read with brute force over the events that count for each row."""
    assert read.block is not None
    assert read.unavailable is None
    for i, (key, t) in enumerate(case.asks):
        if None in key:
            assert not read.has_row[i]
            assert np.isnan(read.block[i]).all()
        else:
            chosen = [event for event in case.events if event.key == key and counts(i, event)]
            assert bits(read.block[i].tolist()) == bits(features(case.view, chosen, t)), (key, t)
            assert read.has_row[i]


def packed(
    join: WindowJoin, case: WindowCase, parts: list[LogPartition], m: int, only: pa.Table | None = None
) -> dict[Key, bytes]:
    """Return all states as they are loaded into the online store, or those of some keys."""
    states: dict[Key, bytes] = {}
    for keys, tiles in join.states(case.view, parts, m, only=only):
        names = [tuple(row.values()) for row in keys.to_pylist()]
        states |= dict(zip(names, TileCodec(case.view).pack(tiles).to_pylist(), strict=True))
    return states


def online(case: WindowCase, states: dict[Key, bytes], t: int, reader: WindowReader | None = None) -> None:
    """Compare what packed states answer at t with brute force; an absent one is that of no events.

    Args:
        reader: may have answered at other times.
    """
    reader = reader or WindowReader(case.view)
    keys = list(dict.fromkeys(key for key, _ in case.asks if None not in key))
    events = {key: [event for event in case.events if event.key == key] for key in keys}
    expected = [bits(features(case.view, events[key], t)) for key in keys]
    tiles = TileCodec(case.view).unpack([states.get(key) for key in keys])
    assert [bits(read.tolist()) for read in reader.features(tiles, t)] == expected, t
    each = np.full(len(keys), t, dtype=np.int64)
    assert [bits(read.tolist()) for read in reader.features(tiles, each)] == expected, t
    for key, one in zip(keys, expected, strict=True):
        assert bits(reader.features(TileCodec(case.view).unpack([states.get(key)]), t)[0].tolist()) == one, (key, t)


def table_of(case: WindowCase, events: list[Event]) -> pa.Table:
    keys = {key.name: column_of([event.key[i] for event in events], key) for i, key in enumerate(case.view.keys)}
    inputs = {one.name: column_of([event.values[one.name] for event in events], one) for one in case.view.logged_inputs}
    return pa.table({**keys, **inputs})
