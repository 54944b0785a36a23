"""The contestant of windowed reads: a project's reader, and the bare MGET in turn with it."""

# ruff: noqa: PLC0415 - a contestant loads its own libraries, and nobody else's

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.contestant import ContestantError
from benchmarks.ingests import KEYS, columns
from benchmarks.meter import Meter
from benchmarks.scale import rounds
from benchmarks.server import empty
from skewless.infra.platform.storage.project_state import ProjectState

SIZES = (1, 100)
_LAPS = 15


def reads(meter: Meter, *, folder: str, url: str, n: int) -> str:
    """Build states of four views from n events over eight days, then read them."""
    import redis

    from benchmarks.window_events import ALL, WINDOWS, plan_of, view
    from skewless.contract.request import ParsedRows
    from skewless.contract.windows.hops import HOUR
    from skewless.infra.reads.online.redis_store import BlockingReader
    from skewless.infra.reads.online.service_vectors import FeatureReader
    from skewless.infra.reads.online.window_states import WindowStates

    windows = (*WINDOWS, 3 * HOUR)
    views = [view(ALL, key=name, name=f"{name}_live", windows=windows) for name in KEYS]
    plan = plan_of(views, list(KEYS))
    empty(url)  # each round builds its own
    states = _filled(plan, views, Path(folder) / f"{time.time_ns()}", url, n)
    reader, names = FeatureReader(plan, BlockingReader(url)), WindowStates(plan)
    client: Any = redis.Redis.from_url(url)
    names.load_generations(client.mget(names.pointers))
    for size in SIZES:
        asks = [ParsedRows(keys=_keys(i, size), fields={}) for i in range(max(rounds(200) // size, 2))]
        keys = [[key for key in names.names(ask.keys, size) if key is not None] for ask in asks]
        meter.note(
            f"{size} bytes", float(np.mean([sum(len(row or b"") for row in client.mget(each)) for each in keys]))
        )
        t = time.time_ns() // 1_000_000 * 1_000
        reader.read(asks[0], t)
        for _ in range(rounds(_LAPS)):
            with meter.lap(f"{size}", times=len(asks)):
                for ask in asks:
                    reader.read(ask, t)
            with meter.lap(f"{size} MGET", times=len(asks)):
                for each in keys:
                    client.mget(each)
    _check(reader, states, plan)
    client.close()
    return "equal"


def _filled(plan: Any, views: Any, folder: Path, url: str, n: int) -> Any:  # noqa: ANN401 - loaded by contestants alone
    """Write a log and build all states from it; return what reads the log."""
    from skewless.contract.clock import SystemClock
    from skewless.contract.settings import Settings
    from skewless.infra.ingest.streams.backfill import Backfiller
    from skewless.infra.ingest.streams.streams import Streams
    from skewless.infra.log.log_columns import EVENT, KNOWN_AT, event_schema
    from skewless.infra.log.partition_log import PartitionLog
    from skewless.infra.reads.offline.engine import connect
    from skewless.infra.reads.offline.views import OfflineViews
    from skewless.infra.reads.online.redis_store import RedisWriter

    made = columns(n)
    end = int(made["ts"][-1])
    made["ts"] = end - np.sort(np.random.default_rng(4).integers(0, 8 * 86_400 * 10**6, n))[::-1]
    rows = {**{name: made[name] for name in (*KEYS, "amount")}, EVENT: made["ts"], "__ingest_ts": made["ts"]}
    schema = event_schema(plan.sources[0])
    table = pa.table([pa.array(rows.get(field.name, pa.nulls(n, field.type))) for field in schema], schema=schema)
    PartitionLog(ProjectState(folder), "events/events/made/0").append(
        table.append_column(KNOWN_AT, pa.array(made["ts"]))
    )
    connection = connect(folder / "spill")
    store = RedisWriter(url)
    streams = Streams(
        plan=plan,
        state=ProjectState(folder),
        settings=Settings(),
        url=lambda: url,
        connection=connection,
        clock=SystemClock(),
    )
    Backfiller(streams=streams, store=store).build_missing(views)
    store.close()
    return OfflineViews(ProjectState(folder), connection)


def _keys(seed: int, size: int) -> dict[str, list[int]]:
    made = columns(10_000)
    rng = np.random.default_rng(seed)
    return {name: rng.choice(made[name], size).tolist() for name in KEYS}


def _check(reader: Any, offline: Any, plan: Any) -> None:  # noqa: ANN401 - loaded by contestants alone
    from skewless.contract.request import ParsedRows
    from skewless.infra.reads.offline.as_of import TIME

    t = time.time_ns() // 1_000_000 * 1_000
    keys: Any = _keys(0, 200)
    online = reader.read(ParsedRows(keys=keys, fields={}), t)
    found = offline.read(plan, pa.table({**keys, TIME: np.full(200, t)}), "event_time")
    for name, read in found.items():
        if not np.array_equal(np.asarray(read.block), np.asarray(online.reads[name].block), equal_nan=True):
            raise ContestantError(f"view {name!r} differs online and offline")
