"""The memory that the capacity model foresees, against what servers have allocated for thousands of entities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis

from benchmarks.repo import ViewTable, applied_repo
from benchmarks.server import empty, own_server
from benchmarks.window_events import ALL, START_US, view
from skewless.contract.window_events import EventSelector
from skewless.contract.windows.hops import DAY
from skewless.contract.windows.state_layout import EventOrigins
from skewless.contract.windows.view import Function, WindowView
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.reads.online.store import open_online_store
from skewless.infra.reads.online.window_states import StateView
from skewless.project import Project
from skewless_capacity.capacity import capacity
from skewless_capacity.online_size import key_memory, row_memory, state_memory

DAYS = 20
ENTITIES = 2_000
FIRST_ID = 10**18  # keys of 19 digits, as many as the model assumes
PLAIN = view()
DISTINCT = replace(view((*ALL, Function.COUNT_DISTINCT)), sketch_size=16)


@pytest.fixture(scope="module", params=[pytest.param("system", marks=pytest.mark.soak), "private"])
def store_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the system's Redis, if there is one, and of the private Valkey."""
    if request.param == "system":
        with own_server() as url:
            yield url
        return
    private = PrivateServer(tmp_path_factory.mktemp("private"))
    yield private.ensure()
    private.stop()


def least_share(url: str) -> float:
    """Return the least share of the model that a server takes: the model rounds as jemalloc does."""
    with redis.Redis.from_url(url) as client:
        return 0.9 if "jemalloc" in client.info("memory")["mem_allocator"] else 0.75


def data_bytes(url: str) -> int:
    """Return the bytes of a server's rows and states: its own account of each key, and its table of keys.

    Buffers of clients and memory of scripts, which ``used_memory`` has too, do not grow with the entities.
    """
    with redis.Redis.from_url(url) as client:
        pipe = client.pipeline(transaction=False)
        for name in keys_of(url):
            pipe.memory_usage(name, samples=0)
        return sum(map(int, pipe.execute())) + int(client.memory_stats()["overhead.db.hashtable.lut"])


def keys_of(url: str) -> dict[bytes, int]:
    """Return the name of each row and state of a server, and the length of its value."""
    with redis.Redis.from_url(url) as client:
        names = [name for name in client.scan_iter(count=10_000) if b"{" in name]
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.strlen(name)
        return dict(zip(names, pipe.execute(), strict=True))


def append_events(url: str, window_view: WindowView, n: int, per_day: float) -> StateView:
    """Append events of some entities at random times, a day at a time, as a stream worker does."""
    rng, seq = np.random.default_rng(3), 0
    states, selector = StateView("bench", window_view, 1), EventSelector(window_view)
    store = open_online_store(url)
    for day in range(DAYS):
        size = int(n * per_day)
        ts = np.sort(rng.integers(START_US + day * DAY, START_US + (day + 1) * DAY, size))
        rows = pa.table({"key": FIRST_ID + rng.integers(0, n, size), "amount": np.round(rng.gamma(2.0, 40.0, size), 2)})
        origin = EventOrigins(ts=ts, partition=np.full(size, 7), seq=np.arange(seq, seq + size))
        states.append(store, selector.select(rows, origin), int(ts[-1]), ("marker", None))
        seq += size
    return states


def test_rows_take_what_the_model_says(store_url: str, tmp_path: Path) -> None:
    tables = [ViewTable(name=f"t{n}", n_entities=ENTITIES, n_features=n) for n in (4, 30)]
    for table in tables:
        table.write(tmp_path)
    repo = applied_repo(tmp_path / "repo", tables, tmp_path)
    empty(store_url)
    with Project(repo, redis_url=store_url) as project:
        project.materialize(check=False)
        plan = project.applied.plan
        model = [ENTITIES * row_memory(plan.project, each, 16) for each in plan.views]
        foreseen = [figure.size_bytes for figure in capacity(project, entities=ENTITIES).figures]
    # The ids have up to 4 digits, the model assumes 19.
    assert least_share(store_url) - 0.05 <= data_bytes(store_url) / sum(model) <= 1.02
    assert foreseen[:2] == [pytest.approx(each, abs=1) for each in model]
    assert foreseen[2] == pytest.approx(sum(model), abs=1)


@pytest.mark.parametrize("window_view", [PLAIN, DISTINCT], ids=["plain", "distinct"])
@pytest.mark.parametrize(("n", "per_day"), [(1_000, 0.5), (1_000, 4), (200, 30)])
def test_states_take_at_most_what_the_model_says(
    store_url: str, window_view: WindowView, n: int, per_day: float
) -> None:
    empty(store_url)
    states = append_events(store_url, window_view, n, per_day)
    model = state_memory("bench", window_view, 16, events_per_day=per_day, days=DAYS)
    assert 0.3 <= data_bytes(store_url) / n / model <= 1
    # Rolled up, as a backfill writes them, each state has exactly the memory of its length.
    store, names = open_online_store(store_url), [*keys_of(store_url)]
    rolled = states.roll(store, pa.array(names, pa.large_binary()), START_US + DAYS * DAY)
    assert rolled == len(names)
    lengths: Sequence[Any] = [*keys_of(store_url).items()]
    exact = sum(key_memory(len(name), length) for name, length in lengths)
    assert least_share(store_url) <= data_bytes(store_url) / exact <= 1.02
