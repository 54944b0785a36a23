"""SEMANTICS 2.1, 2.5: rows and deletions with an event time after t, in training of both modes and online."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.plan import View
from skewless.infra.reads.offline.join import Order
from tests.property.fewer import FEWER
from tests.worlds.latest import LatestWorld, seen
from tests.worlds.plans import make_view

SECOND = 1_000_000
NOW = 100  # seconds
TTL = 60
VIEW = make_view(features={"x": DType.INT64}, tombstone="gone", ttl_us=TTL * SECOND)
Row = tuple[int, int, int, int | None, bool]  # id, event time, created time, x, gone; seconds
SHORTLY = NOW + 5


def write(root: Path, rows: list[Row]) -> None:
    stamp = pa.timestamp("us", tz="UTC")
    ids, events, created, values, gone = ([row[i] for row in rows] for i in range(5))
    columns = {
        "id": pa.array(ids, pa.int64()),
        "event": pa.array([at * SECOND for at in events if at is not None], pa.int64()).cast(stamp),
        "created": pa.array([at * SECOND for at in created if at is not None], pa.int64()).cast(stamp),
        "x": pa.array(values, pa.int64()),
        "gone": pa.array(gone, pa.bool_()),
    }
    pq.write_table(pa.table(columns), root / "v.parquet")


def run_at(world: LatestWorld, now_us: int, view: View = VIEW) -> None:
    world.clock.set(now_us)
    world.run(view)


OLD: Row = (1, NOW - 9, NOW - 9, 7, False)
# Rows, what is seen at NOW on all sides, and 20 s later: a row that was written before it happens waits until then.
STANDS = ("PRESENT", 7)
CASES: dict[str, tuple[list[Row], tuple[str, int | None], tuple[str, int | None]]] = {
    "a valid row": ([OLD], STANDS, STANDS),
    "a forecast": ([OLD, (1, SHORTLY, NOW, 8, False)], STANDS, ("PRESENT", 8)),
    "a forecast of long ago": ([OLD, (1, SHORTLY, 1, 8, False)], STANDS, ("PRESENT", 8)),
    "two forecasts": ([OLD, (1, SHORTLY + 1, 1, 9, False), (1, SHORTLY, NOW, 8, False)], STANDS, ("PRESENT", 9)),
    "a forecast corrected": ([OLD, (1, SHORTLY, NOW, 9, False), (1, SHORTLY, 1, 8, False)], STANDS, ("PRESENT", 9)),
    "a deletion of the future": ([OLD, (1, SHORTLY, NOW, None, True)], STANDS, ("NOT_FOUND", None)),
    "a forecast alone": ([(1, SHORTLY, NOW, 8, False)], ("NOT_FOUND", None), ("PRESENT", 8)),
    "a row after a deletion": (
        [OLD, (1, SHORTLY, NOW, None, True), (1, SHORTLY + 1, NOW, 9, False)],
        STANDS,
        ("PRESENT", 9),
    ),
    "a forecast of another day": ([OLD, (1, NOW + 86_400, NOW, 8, False)], STANDS, STANDS),
    "a row that is written later": ([OLD, (1, NOW - 1, SHORTLY, 8, False)], STANDS, ("PRESENT", 8)),
}


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_2_5_a_row_of_the_future(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection, case: str, *, live: bool
) -> None:
    rows, at_first, at_last = CASES[case]
    world = LatestWorld(root=tmp_path, opened=connection)
    if live:  # what came with a view's first load is known from its created time, what came later from its run
        write(tmp_path, [(2, 1, 1, 1, False)])
        run_at(world, 50 * SECOND)
    write(tmp_path, [*rows, (2, 1, 1, 1, False)])
    for t, expected in ((NOW * SECOND, at_first), ((NOW + 20) * SECOND, at_last)):
        run_at(world, t)
        orders: list[Order] = ["event_time", "knowledge", "finished"]
        assert [seen(VIEW, world.offline(VIEW, [1], t=t, order=order), t) for order in orders] == [[expected]] * 3
        assert seen(VIEW, world.online(VIEW, [1]), t) == [expected]


ROWS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(60, 140), st.integers(55, 140), st.none() | st.integers(0, 9), st.booleans()
    ),
    min_size=1,
    max_size=12,
)


@FEWER
@given(batches=st.lists(ROWS, min_size=1, max_size=4), ttl=st.sampled_from([0, 15]))
def test_2_2_knowledge_time_is_the_history_of_the_online_store(
    connection: duckdb.DuckDBPyConnection, batches: list[list[Row]], ttl: int
) -> None:
    """Runs find rows of the past and of the next runs; after each, all times up to the next are asked."""
    keys = [[key] for key in range(3)]
    view = make_view(features={"x": DType.INT64}, tombstone="gone", ttl_us=ttl * SECOND)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place).resolve()
        world = LatestWorld(root=root, opened=connection)
        source: list[Row] = []
        history: list[tuple[int, list[tuple[str, int | None]]]] = []
        for number, batch in enumerate(batches):
            start = (120 + 10 * number) * SECOND
            source += [
                (key, event + 10 * number, created + 10 * number, x, gone) for key, event, created, x, gone in batch
            ]
            write(root, source)
            run_at(world, start, view)
            moments = (start, start + 4 * SECOND, start + 9 * SECOND)
            history += [(t, seen(view, world.online(view, *keys), t)) for t in moments]
        for t, served in history:
            assert seen(view, world.offline(view, *keys, t=t), t) == served
            accepted = [row for row in source if max(row[1], row[2]) * SECOND <= start]
            assert seen(view, world.offline(view, *keys, t=t, order="event_time"), t) == [
                by_event_time(accepted, key, t, ttl * SECOND) for (key,) in keys
            ]


def by_event_time(source: list[Row], key: int, t: int, ttl: int) -> tuple[str, int | None]:
    """Return by plain Python what event time says: late rows count as if they had come in time."""
    best: Row | None = None
    for row in source:
        valid = row[0] == key and row[1] * SECOND <= t
        if valid and (best is None or (row[1], row[2]) >= (best[1], best[2])):
            best = row
    if best is None or best[4]:
        return "NOT_FOUND", None
    return ("EXPIRED", None) if 0 < ttl < t - best[1] * SECOND else ("PRESENT", best[3])
