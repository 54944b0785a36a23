"""A project with a windowed view over a log that a test writes, and a batch view beside it, on a real server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import redis

from skewless.contract.clock import ManualClock
from skewless.contract.dtypes import DType
from skewless.contract.keys import KeyCodec, window_marker
from skewless.contract.plan import FeaturePlan
from skewless.contract.settings import Settings
from skewless.contract.windows.hops import SECOND
from skewless.contract.windows.view import Aggregate, EventSource, Function, WindowView
from skewless.infra.ingest.streams.backfill import Backfiller
from skewless.infra.ingest.streams.state_writer import StateWriter
from skewless.infra.ingest.streams.streams import Streams
from skewless.infra.log.catalog import source_logs
from skewless.infra.log.generations import Generations
from skewless.infra.log.log_columns import event_schema
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.reads.online.redis_store import BlockingReader, RedisWriter
from skewless.infra.reads.online.window_states import StateView
from skewless.validation.parity import Parity
from skewless.validation.parity_report import ParityReport
from tests.worlds.latest import LatestRedisWorld, times
from tests.worlds.plans import columns, make_view

MINUTE, HOUR = 60 * SECOND, 3_600 * SECOND
NOW = 500_000 * HOUR
SOURCE = EventSource(
    name="landings",
    kind="push",
    event_column="at",
    columns=columns({"carrier": DType.STRING, "delay": DType.FLOAT64, "plane": DType.INT64}),
    earliest_us=0,
    latest_us=2**62,
)
ASKED = [
    ("n", "carrier", Function.COUNT),
    ("mean", "delay", Function.MEAN),
    ("std", "delay", Function.STD),
    ("worst", "delay", Function.MAX),
    ("last", "delay", Function.LAST),
    ("planes", "plane", Function.COUNT_DISTINCT),
]
VIEW = WindowView(
    name="carrier_now",
    keys=columns({"carrier": DType.STRING}),
    source="landings",
    event_column="at",
    inputs=columns({"delay": DType.FLOAT64, "plane": DType.INT64}),
    aggregates=tuple(
        Aggregate(name=f"{name}_1h", column=column, function=function, window_us=HOUR, hop_us=5 * MINUTE)
        for name, column, function in ASKED
    )
    + tuple(
        Aggregate(name=f"last_{i}", column="delay", function=Function.LAST, window_us=HOUR, hop_us=5 * MINUTE, place=i)
        for i in (2, 3)
    ),
    scales={"delay": 3},
    sketch_size=4,
)
ROWS = make_view("facts", path="facts.parquet", features={"x": DType.FLOAT64, "note": DType.STRING})
Event = tuple[str, int, float | None, int | None]  # carrier, time, delay, plane


@dataclass(kw_only=True)
class ParityWorld:
    """One project; the clock is in the test's hand."""

    root: Path
    url: str
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))

    @cached_property
    def batches(self) -> LatestRedisWorld:
        return LatestRedisWorld(root=self.root, url=self.url, clock=self.clock)

    @property
    def state(self) -> ProjectState:
        return ProjectState(self.root / "state")

    @cached_property
    def plan(self) -> FeaturePlan:
        return FeaturePlan(
            project=self.root.name,
            views=(ROWS,),
            request=(),
            transforms=(),
            services=(),
            windows=(VIEW,),
            sources=(SOURCE,),
        )

    @cached_property
    def connection(self) -> Any:  # noqa: ANN401 - DuckDB's
        return connect(self.root / "spill", threads=1)

    @cached_property
    def views(self) -> OfflineViews:
        return OfflineViews(self.state, self.connection)

    @cached_property
    def writer(self) -> RedisWriter:
        return RedisWriter(self.url)

    @cached_property
    def reader(self) -> BlockingReader:
        return BlockingReader(self.url)

    @cached_property
    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    @cached_property
    def generations(self) -> Generations:
        return Generations(self.state)

    @cached_property
    def states(self) -> StateWriter:
        return StateWriter(
            project=self.plan.project,
            source=SOURCE.name,
            views=[VIEW],
            store=self.writer,
            generations=self.generations,
            clock=self.clock,
        )

    @property
    def parity(self) -> Parity:
        return Parity(plan=self.plan, state=self.state, views=self.views, reader=self.reader, clock=self.clock)

    def close(self) -> None:
        for name in ("writer", "reader", "redis", "connection"):
            if name in self.__dict__:
                self.__dict__[name].close()

    def log(self, partition: str = "t/0") -> PartitionLog:
        """Return a log of the source, opened again."""
        return PartitionLog(self.state, f"{source_logs(SOURCE.name)}/{partition}")

    def accept(self, events: Sequence[Event], partition: str = "t/0", *, apply: bool = True) -> None:
        """Log events, and apply them as a worker does."""
        log = self.log(partition)
        self.generations.add_partitions(VIEW, [log.partition])
        rows = event_rows(events, self.clock.now_us())
        span = log.append(rows)
        if apply:
            numbers = pa.array(np.arange(span.first, span.last + 1))
            self.states.apply(log, rows.append_column("__seq", numbers))
            log.record_end(span.first, span.last, self.clock.now_us())

    def bootstrap(self) -> None:
        """Build the first generation, or the next."""
        streams = Streams(
            plan=self.plan,
            state=self.state,
            settings=Settings(),
            url=lambda: self.url,
            connection=self.connection,
            clock=self.clock,
        )
        Backfiller(streams=streams, store=self.writer).build(VIEW)

    def facts(self, *rows: tuple[int, int, float | None, str | None]) -> None:
        """Publish rows of the batch view (id, hour, x, note) and materialise them."""
        moments = times(*(NOW - 10 * HOUR + hour * HOUR for _, hour, _, _ in rows))
        values = {
            "id": pa.array([row[0] for row in rows], pa.int64()),
            "event": moments,
            "created": moments,
            "x": pa.array([row[2] for row in rows], pa.float64()),
            "note": pa.array([row[3] for row in rows], pa.string()),
        }
        self.batches.write(ROWS.source.path, values)
        self.batches.run(ROWS)

    @property
    def generation(self) -> int:
        live = self.generations.find_live(VIEW)
        assert live is not None
        return live.number

    @property
    def means(self) -> StateView:
        return StateView(self.plan.project, VIEW, self.generation)

    def key(self, carrier: str) -> bytes:
        name = KeyCodec(self.plan.project, VIEW, self.generation).encode([carrier])
        assert name is not None
        return name

    def row_key(self, number: int) -> bytes:
        name = KeyCodec(self.plan.project, ROWS).encode([number])
        assert name is not None
        return name

    def marker(self, partition: str = "t/0") -> str:
        return window_marker(self.plan.project, VIEW, self.generation, f"events/{SOURCE.name}/{partition}")

    def stored(self, key: bytes) -> bytes:
        value = self.redis.get(key)
        assert isinstance(value, bytes)
        return value

    def compare(self, *names: str, repair: bool = False, sample: int = 100, seed: int = 0) -> ParityReport:
        return self.parity.run(names, sample=sample, seed=seed, repair=self.writer if repair else None)


def event_rows(events: Sequence[Event], ingest_us: int) -> pa.Table:
    """Return events as rows of a log."""
    schema = event_schema(SOURCE)
    n = len(events)
    known = {
        "carrier": [event[0] for event in events],
        "delay": [event[2] for event in events],
        "plane": [event[3] for event in events],
        "__event_ts": [event[1] for event in events],
        "__ingest_ts": [ingest_us] * n,
    }
    return pa.table({field.name: pa.array(known.get(field.name, [None] * n), field.type) for field in schema})


def busy_hour(carriers: Sequence[str] = ("AA", "UA", "日本"), n: int = 60) -> list[Event]:
    """Return n events of the last hour; the first carrier has most."""
    hot = [carriers[0]] * 2
    return [
        ((*carriers, *hot)[i % (len(carriers) + 2)], NOW - HOUR + i * 50 * SECOND, i * 0.7 - 9.0, i % 7 or None)
        for i in range(n)
    ]
