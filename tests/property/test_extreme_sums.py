"""SEMANTICS 3.9: what a view cannot sum does not count in it, and stops nothing: worker, bootstrap or training."""

from __future__ import annotations

import json
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.windows.view import SUMMED, Aggregate, Function, WindowView
from skewless.infra.log.log_columns import REJECT
from skewless.infra.reads.offline.window_events import WindowEvents
from skewless.infra.reads.offline.window_join import WindowJoin
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.property.fewer import FEWER
from tests.property.test_window_join import online, packed, same
from tests.servers.node import Node
from tests.windows.cases import INTEGERS, VALUES, WINDOWS, WindowCase, cases, make_window_view
from tests.windows.oracle import counts, counts_by
from tests.worlds.streams import VIEW, StreamWorld, drain

EXTREME_FLOATS = [
    1e308,
    -1e308,
    float("inf"),
    -float("inf"),
    5e-324,
    2.0**46,
    -(2.0**46),
    2.0**62,
    4.6e6,
    70368744.177664,
]
EXTREME_INTS = [2**63 - 1, -(2**63), 2**62, 2**62 - 1, -(2**62), 2**46, 2**46 - 1, 1 - 2**46, 70368744, 4611686]
VIEWS = (make_window_view({"id": DType.INT64}), make_window_view({"id": DType.INT64}, filtered=True))


def summing(view: WindowView, scales: dict[str, int]) -> WindowView:
    """Return a view that takes every function of every number column."""
    numbers = [name for name in ("x", "y", "n", "z") if name != "z" or view.transform is not None]
    every = [
        Aggregate(name=f"{function}_{column}", column=column, function=function, window_us=window, hop_us=hop)
        for window, hop in WINDOWS[:1]
        for column in numbers
        for function in Function
    ]
    return replace(view, aggregates=tuple(every), scales={name: scales[name] for name in numbers})


SCALES = st.fixed_dictionaries({name: st.integers(0, 12) for name in ("x", "y", "n", "z")})
EXTREMES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "x": st.none() | st.floats(allow_nan=True) | st.sampled_from(EXTREME_FLOATS) | st.floats(-1e6, 1e6),
        "y": st.none() | st.floats() | st.sampled_from(EXTREME_FLOATS) | st.floats(-10, 10),
        "n": st.none() | st.integers(-(2**63), 2**63 - 1) | st.sampled_from(EXTREME_INTS) | st.integers(-9, 9),
        "s": st.just("a"),
    }
)
CASES = st.builds(summing, st.sampled_from(VIEWS), SCALES).flatmap(
    lambda view: cases(view, INTEGERS, st.one_of(EXTREMES, VALUES))
)


@FEWER
@given(case=CASES)
def test_training_bootstrap_and_serving_leave_out_the_same_events(
    connection: duckdb.DuckDBPyConnection, case: WindowCase
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parts, join = case.parts(Path(folder)), WindowJoin(connection)
        same(case, join.read(case.view, parts, case.entities, mode="event_time"), lambda _row, _event: True)
        known = join.read(case.view, parts, case.entities, mode="knowledge")
        same(case, known, lambda row, event: counts_by(case.asks[row][1])(event))
        t = max(t for _, t in case.asks) // 1_000 * 1_000
        online(case, packed(join, case, parts, t), t)
        found = WindowEvents(connection, case.view, parts, {}, known=False).count_unsummable()
    filtered = case.view.filter
    out = [
        event
        for event in case.events
        if not counts(case.view, event) and (filtered is None or event.values[filtered] is True)
    ]
    assert bool(found) == bool(out)
    assert max(found.values(), default=0) <= len(out) <= sum(found.values())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 4))])
def test_a_new_view_cannot_stop_a_source(
    valkey: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    for name in ("_LINGER_S", "_RETRY_S", "_CHECK_S"):
        monkeypatch.setattr(f"skewless.infra.ingest.streams.worker.{name}", 0.0)
    valkey.ask("FLUSHALL")
    rng, broker = random.Random(seed), MemoryBroker(1)
    before = replace(VIEW, aggregates=tuple(item for item in VIEW.aggregates if item.function not in SUMMED))
    after = summing(VIEW, {name: rng.randint(0, 12) for name in ("x", "y", "n")})
    old = StreamWorld(root=tmp_path / "p", url=valkey.url, views=(before,))
    live(old, broker, rng, 40)
    assert not [row for rows in old.logged().values() for row in rows if row[REJECT] is not None]
    new = StreamWorld(root=tmp_path / "p", url=valkey.url, views=(after,), clock=old.clock)
    live(new, broker, rng, 40)
    refused = [row[REJECT] for rows in new.logged().values() for row in rows if row[REJECT] is not None]
    assert refused
    assert all("to sum exactly" in str(reason) for reason in refused)


def live(world: StreamWorld, broker: MemoryBroker, rng: random.Random, n: int) -> None:
    """Send events, let a worker take them, and compare what is online with log and brute force."""
    world.ensure()
    for i in range(n):
        body = {"event": f"{rng.random()}", "id": i % 3, "ts": world.clock.now_us() - rng.randrange(10**7), "s": "a"}
        body["x"] = rng.choice([*EXTREME_FLOATS, 0.5, -2.25, None])
        body["y"] = rng.choice([*EXTREME_FLOATS, 1.5, None])
        body["n"] = rng.choice([*EXTREME_INTS, 3, -4, None])
        broker.append(0, json.dumps(body).encode())
    with world.store() as store:
        worker = world.worker(store, lambda owner: MemoryStream(broker, owner), max_rows=7)
        drain(worker)
        worker.close()
    world.check()
