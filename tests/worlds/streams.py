"""A small world for stream workers: a real store, a log on disk, a clock that a test moves, and what must be true."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.clock import ManualClock, OffsetClock
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.plan import FeaturePlan
from skewless.contract.rows import ViewRead
from skewless.contract.settings import Settings
from skewless.contract.status import Int64Array
from skewless.contract.windows.hops import MILLISECOND, SECOND
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.ingest.streams.backfill import Backfiller, Housekeeper
from skewless.infra.ingest.streams.port import OpenStream
from skewless.infra.ingest.streams.state_writer import StateWriter
from skewless.infra.ingest.streams.streams import Streams
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.generations import Generations
from skewless.infra.log.log_columns import EVENT, EVENT_ID, REJECT, SEQ, SOURCE_POS
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.log_parts import read_log_partitions
from skewless.infra.reads.offline.window_join import WindowJoin
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.port import OnlineStore
from skewless.infra.reads.online.redis_store import BlockingReader, RedisWriter
from skewless.infra.reads.online.window_states import WindowStates
from tests.windows.cases import make_window_view
from tests.windows.log import bits, signed
from tests.windows.oracle import Event, Value, features
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.plans import columns
from tests.worlds.waiting import PATIENCE_S

BASE = 1_700_000_000 * SECOND
VIEW = make_window_view({"id": DType.INT64})
IDS = 10
INPUTS = {"x": DType.FLOAT64, "y": DType.FLOAT64, "n": DType.INT64, "s": DType.STRING}
SOURCE = EventSource(
    name="s",
    kind="push",
    event_column="ts",
    columns=columns({"event": DType.STRING, "id": DType.INT64, **INPUTS}),
    id_column="event",
    scales={"x": 3},
    dedupe_us=3_600 * SECOND,
    earliest_us=BASE - 3_600 * SECOND,
    latest_us=BASE + 100 * 3_600 * SECOND,
)
Bits = list[list[str]]


@dataclass(frozen=True, kw_only=True)
class Online:
    """What the store says of ids 0 to ``IDS - 1``; ``applied`` per id and log partition."""

    read: ViewRead
    generation: int
    partitions: list[str]
    applied: Int64Array

    @property
    def answered(self) -> bool:
        return self.read.available

    @property
    def bits(self) -> Bits:
        return block_bits(self.read)


@dataclass
class StreamWorld:
    """One project with one event source and one windowed view."""

    root: Path
    url: str
    clock: ManualClock | OffsetClock = field(default_factory=lambda: ManualClock(BASE))
    views: tuple[WindowView, ...] = (VIEW,)
    source: EventSource = SOURCE
    needed: Callable[[], Collection[str]] | None = None
    addresses: ProjectAddresses = field(default_factory=ProjectAddresses)

    @property
    def plan(self) -> FeaturePlan:
        return FeaturePlan(
            project=self.root.name,
            views=(),
            request=(),
            transforms=(),
            services=(),
            windows=self.views,
            sources=(self.source,),
        )

    @property
    def state(self) -> ProjectState:
        return self.addresses.state(self.root)

    @property
    def generations(self) -> Generations:
        return Generations(self.state)

    @contextmanager
    def store(self) -> Iterator[OnlineStore]:
        writer = RedisWriter(self.url)
        try:
            yield writer
        finally:
            writer.close()

    def worker(
        self,
        store: OnlineStore,
        open_stream: OpenStream,
        *,
        max_rows: int = 1_000,
        registry: str | None = None,
        **settings: int,
    ) -> Worker:
        writer = StateWriter(
            project=self.root.name,
            source=self.source.name,
            views=self.views,
            store=store,
            generations=self.generations,
            clock=self.clock,
            needed=self.needed,
        )
        streams = self.streams(settings=Settings(stream_batch_rows=max_rows, schema_registry=registry, **settings))
        return Worker(streams=streams, source=self.source, writer=writer, open_stream=open_stream)

    @contextmanager
    def backfiller(self, store: OnlineStore) -> Iterator[Backfiller]:
        with connect(self.root / "spill", threads=1) as connection:
            yield Backfiller(streams=self.streams(connection), store=store)

    def streams(self, connection: duckdb.DuckDBPyConnection | None = None, settings: Settings | None = None) -> Streams:
        return Streams(
            plan=self.plan,
            state=self.state,
            settings=settings or Settings(),
            url=lambda: self.url,
            connection=connection or duckdb.connect(),
            clock=self.clock,
        )

    def ensure(self) -> None:
        """Build what has no states, as ``skewless stream`` does when it starts."""
        with self.store() as store, self.backfiller(store) as backfiller:
            backfiller.build_missing(self.views)

    def housekeeper(self, store: OnlineStore) -> Housekeeper:
        return Housekeeper(streams=self.streams(), sources=[self.source], store=store)

    def logged(self) -> dict[str, list[dict[str, Any]]]:
        """Return all log rows by partition, in their order."""
        found = {}
        names = [*self.source.columns, *(Column(name=n, dtype=DType.INT64) for n in (EVENT, SEQ, REJECT))]
        wanted = [*(column.name for column in names), SOURCE_POS, EVENT_ID]
        for name in log_partitions(self.state, self.source.name):
            rows = [row for part in PartitionLog(self.state, name).read(columns=wanted) for row in part.to_pylist()]
            assert [row[SEQ] for row in rows] == list(range(len(rows))), "the log is not dense"
            found[name] = rows
        return found

    def events(self) -> list[Event]:
        """Return the accepted events of the log, for brute force."""
        return [event_of(name, row) for name, rows in self.logged().items() for row in rows if row[REJECT] is None]

    def online(
        self,
        t: int,
        marker_history: MarkerHistory | None = None,
        view: WindowView | None = None,
        states: WindowStates | None = None,
    ) -> Online:
        """Read the states as a server that has just started does, or with what one that goes on remembers."""
        reader = BlockingReader(self.url)
        try:
            return read_online(self, reader, t, marker_history or MarkerHistory(), view or self.views[0], states)
        finally:
            reader.close()

    def offline(self, online: Online, t: int, view: WindowView | None = None) -> Bits:
        """Return what the log says of the same positions, by ``WindowJoin``."""
        parts = read_log_partitions(self.state, self.source.name)
        entities = pa.table({"id": pa.array(range(IDS), pa.int64()), "__t": pa.array([t] * IDS, pa.int64())})
        place = [online.partitions.index(part.partition) for part in parts]
        with connect(self.root / "spill", threads=1) as connection:
            join = WindowJoin(connection)
            read = join.read_applied(view or self.views[0], parts, entities, online.applied[:, place])
        return block_bits(read)

    def brute(self, online: Online, t: int, view: WindowView | None = None) -> Bits:
        """Return what brute force finds in the log at the same positions."""
        place = {signed(name): i for i, name in enumerate(online.partitions)}
        counted = [e for e in self.events() if e.seq <= online.applied[int(str(e.key[0])), place[e.partition]]]
        return brute(view or self.views[0], counted, t)

    def check(self, t: int | None = None, marker_history: MarkerHistory | None = None) -> None:
        """Assert that online, log and brute force agree to the bit, and that nothing is missing online."""
        for view in self.views:
            at = (self.clock.now_us() if t is None else t) // MILLISECOND * MILLISECOND
            online = self.online(at, marker_history, view)
            assert online.answered
            assert online.bits == self.offline(online, at, view)
            assert online.bits == self.brute(online, at, view)
            assert online.bits == brute(view, self.events(), at), "something in the log is missing online"


def read_online(
    world: StreamWorld,
    reader: BlockingReader,
    t: int,
    marker_history: MarkerHistory,
    view: WindowView,
    states: WindowStates | None = None,
) -> Online:
    states = states or WindowStates(world.plan)
    states.load_generations(reader.get_with_markers(states.pointers, [])[0])
    names = states.names({"id": list(range(IDS))}, IDS)
    rows, marks = reader.get_with_markers([name or b"" for name in names], states.markers)
    got = states.read(names, rows, marker_history.check_markers(states.markers, marks), t)
    slots = got.applied[view.name].slots
    partitions = log_partitions(world.state, world.source.name)
    applied = np.full((IDS, len(partitions)), -1, dtype=np.int64)
    place = {signed(name): i for i, name in enumerate(partitions)}
    for entity, partition, seq in zip(slots.entity.tolist(), slots.partition.tolist(), slots.seq.tolist(), strict=True):
        applied[entity, place[partition]] = seq
    return Online(
        read=got.reads[view.name], generation=got.applied[view.name].generation, partitions=partitions, applied=applied
    )


def event_of(partition: str, row: dict[str, Any]) -> Event:
    values: dict[str, Value] = {name: row[name] for name in INPUTS}
    return Event(key=(row["id"],), ts=row[EVENT], partition=signed(partition), seq=row[SEQ], values=values)


def brute(view: WindowView, events: Sequence[Event], t: int) -> Bits:
    by_id: dict[Value, list[Event]] = {key: [] for key in range(IDS)}
    for event in events:
        by_id[event.key[0]].append(event)
    return [bits(features(view, by_id[key], t)) for key in range(IDS)]


def block_bits(read: ViewRead) -> Bits:
    assert read.block is not None
    block: npt.NDArray[np.float64] = read.block
    return [bits(row) for row in block.tolist()]


class Traffic:
    """Makes events: in disorder, late, twice, and some that are bad. What was sent is remembered.

    Args:
        seed: of all chance.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.good: set[str] = set()
        self._sent: list[tuple[int, bytes]] = []
        self._n = 0

    def make(self, n: int, now_us: int) -> list[tuple[int, bytes]]:
        """Return ids, by which events are spread over partitions, and messages."""
        return [self._one(now_us) for _ in range(n)]

    def forget(self) -> None:
        """Send nothing twice that was sent before: the stream begins another life."""
        self._sent.clear()

    def _one(self, now_us: int) -> tuple[int, bytes]:
        luck = self._random.random()
        if luck < 0.15 and self._sent:
            return self._random.choice(self._sent[-50:])
        if luck < 0.2:
            return 0, self._random.choice([b"", b"[]", b'{"id": 1}', b'{"event": "bad", "id": "x", "ts": 1}', b"\xff"])
        pick = self._random
        self._n += 1
        name, key = f"e{self._n}", pick.randrange(IDS)
        age = pick.choice([0, pick.randrange(2 * SECOND), pick.randrange(90 * SECOND), -pick.randrange(9 * SECOND)])
        body = {
            "event": name,
            "id": key,
            "ts": now_us - age,
            "x": pick.choice([None, -0.0, 0.0005, pick.gauss(0, 100), 1e6]),
            "y": pick.choice([None, 5e-324, -1e300, pick.random()]),
            "n": pick.choice([None, 2**53 + 1, -7, pick.randrange(100)]),
            "s": pick.choice([None, "", "a", "é", "日本", f"s{pick.randrange(9)}"]),
        }
        self.good.add(name)
        self._sent.append((key, json.dumps(body).encode()))
        return self._sent[-1]

    def arrived(self, world: StreamWorld) -> bool:
        """Say whether each good event stands in the log by now."""
        return self.good <= {row["event"] for rows in world.logged().values() for row in rows}

    def check(self, world: StreamWorld) -> None:
        """Assert that each good event stands in the log once, and nothing else is accepted."""
        names = [row["event"] for rows in world.logged().values() for row in rows if row[REJECT] is None]
        assert len(names) == len(set(names)), "an event was accepted twice"
        assert set(names) == self.good, "an event is missing, or was never sent"


def busy(worker: Worker) -> bool:
    """Say whether something is left to be taken or applied."""
    parts = worker._partition_workers.values()
    if not parts or worker.counts.lag:
        return True
    # The end of a batch is recorded with the next one, or in the next step.
    return any(part.waiting or part.behind or part.unrecorded_end for part in parts)


def drain(*workers: Worker, more: Callable[[], bool] = lambda: False) -> None:
    """Let workers go on, in turn, until all is taken and applied."""
    deadline = time.monotonic() + PATIENCE_S
    for worker in workers:
        worker.step()
    while more() or any(map(busy, workers)):
        assert time.monotonic() < deadline, [worker.counts for worker in workers]
        for worker in workers:
            worker.step()


def look(*workers: Worker) -> None:
    """Let workers look after the store now, as often as it takes to bring back what nobody owns, and finish."""
    for _ in range(3):
        for worker in workers:
            worker._check_at = worker._retry_at = 0.0
            worker.step()
    drain(*workers)
