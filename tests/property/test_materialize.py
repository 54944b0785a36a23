"""SEMANTICS 1.4, 2.3, 2.6: any order of arrival, any number of runs and crashes; both sides end bit-equal."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.clock import ManualClock
from skewless.contract.dtypes import DType
from skewless.contract.keys import KeyCodec
from skewless.contract.plan import View
from skewless.contract.rows import RowCodec, ViewRead
from skewless.infra.ingest.materialization.materialize import Materializer
from skewless.infra.log.catalog import Segment
from skewless.infra.log.partition_log import Check, PartitionLog, StagedRows
from skewless.infra.log.read_progress import Progress
from skewless.infra.log.runs import Coverage, RunLedger
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.leases import Lease
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.port import Binaries, Marker
from tests.memory_store import MemoryStore
from tests.property.fewer import FEWER
from tests.worlds.latest import LatestWorld, state_folder
from tests.worlds.ledger_runs import read_runs
from tests.worlds.plans import make_view

DELAY = 4
VIEW = make_view(features={"x": DType.FLOAT64, "s": DType.STRING}, tombstone="gone", path="v.parquet", delay_us=DELAY)
IDS = (0, -1, 2**53 + 1)
ASKED = [[key] for key in IDS]
BITS = (0, 1 << 63, 0x7FF8000000000ABC, 0x7FF0000000000001, 0xFFF0000000000000, 4607182418800017408)
T = TypeVar("T")
Identity = tuple[int, int, int | None]


class Crash(Exception):  # noqa: N818 - it is no error of ours
    """The process died here."""


@dataclass
class Fuse:
    """Raises at the n-th durable step, before it is done or after; None: never."""

    left: int | None
    after: bool

    def around(self, step: Callable[[], T]) -> T:
        blown = self.left == 0
        self.left = None if self.left is None or blown else self.left - 1
        if blown and not self.after:
            raise Crash
        result = step()
        if blown:
            raise Crash
        return result


@dataclass
class FusedStore(MemoryStore):
    """The online store, which may die in the middle of a batch."""

    memory: MemoryStore
    fuse: Fuse

    def put(self, keys: Binaries, rows: Binaries) -> int:
        half = len(keys) // 2
        written = self.fuse.around(lambda: self.memory.put(keys[:half], rows[:half]))
        return written + self.fuse.around(lambda: self.memory.put(keys[half:], rows[half:]))

    def marker(self, name: str) -> int | None:
        return self.memory.marker(name)

    def set_markers(self, marks: Mapping[str, Marker], expected: Mapping[str, int | None] | None = None) -> None:
        self.fuse.around(lambda: self.memory.set_markers(marks, expected))


class FusedLedger(RunLedger):
    """The ledger, which may die around each of its writes."""

    def __init__(self, database: Database, fuse: Fuse) -> None:
        super().__init__(database)
        self._fuse = fuse

    def start(self, now_us: int, skew_us: int = 0, lease: Lease | None = None) -> int:
        start = super().start
        return self._fuse.around(lambda: start(now_us, skew_us, lease))

    def finish(self, run_id: int, covers: Mapping[str, Coverage], now_us: int, lease: Lease | None = None) -> None:
        finish = super().finish
        self._fuse.around(lambda: finish(run_id, covers, now_us, lease))


class FusedLog(PartitionLog):
    """The accepted log, which may die around its growth."""

    fuse: Fuse

    def commit_rows(self, staged: StagedRows, check: Check | None = None) -> Segment:
        commit = super().commit_rows
        return self.fuse.around(lambda: commit(staged, check))


@dataclass(frozen=True, kw_only=True)
class FusedMaterializer(Materializer):
    """The materialiser, each of whose durable steps may be its last."""

    fuse: Fuse

    def log(self, view: View) -> PartitionLog:
        log = FusedLog(self.state, view.partition)
        log.fuse = self.fuse
        return log

    def save_progress(self, view: View, progress: Progress) -> None:
        save = super().save_progress
        self.fuse.around(lambda: save(view, progress))


@dataclass(kw_only=True)
class CrashingWorld(LatestWorld):
    """A source that its owner rewrites, a clock, and what survives a crash."""

    source: dict[Identity, tuple[int | None, str | None, bool]] = field(default_factory=dict)
    past: dict[Identity, set[tuple[int | None, str | None, bool]]] = field(default_factory=dict)

    @property
    def database(self) -> Database:
        return ProjectState(self.state).database

    @property
    def now(self) -> int:
        return self.clock.now_us()

    def write_source(self) -> None:
        rows = [(*identity, *content) for identity, content in self.source.items()]
        columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(6)]
        floats = [None if bits is None else struct.unpack("<d", struct.pack("<Q", bits))[0] for bits in columns[3]]
        table = {
            "id": pa.array(columns[0], pa.int64()),
            "event": pa.array(columns[1], pa.timestamp("us", tz="UTC")),
            "created": pa.array(columns[2], pa.timestamp("us", tz="UTC")),
            "x": pa.array(floats, pa.float64()),
            "s": pa.array(columns[4], pa.string()),
            "gone": pa.array(columns[5], pa.bool_()),
        }
        self.write("v.parquet", table)

    def outlives(self, fuse: Fuse) -> bool:
        """Materialise as a new process would; return whether it ended, be it that it died right after."""
        with self.connect() as connection:
            plain = vars(self.job(connection, FusedStore(self.memory, fuse)))
        job = FusedMaterializer(**{**plain, "ledger": FusedLedger(self.database, fuse), "fuse": fuse})
        try:
            job.run([VIEW])
        except Crash:
            runs = read_runs(self.database)
            return bool(runs) and runs[-1].ended_us == self.now
        return True

    def rows(self) -> list[bytes | None]:
        codec = KeyCodec(self.project, VIEW)
        return self.stored([codec.encode([key]) or b"" for key in IDS])

    def known_rows(self) -> dict[int, tuple[str, int]]:
        return {seq: (one.kind, one.ended_us) for one in self.known(VIEW) for seq in range(one.first, one.last + 1)}

    def newest(self) -> dict[int, tuple[Identity, tuple[int | None, str | None, bool]]]:
        """Return what plain Python finds newest of what is published, by key."""
        best: dict[int, tuple[Identity, tuple[int | None, str | None, bool]]] = {}
        for identity in sorted(self.source, key=lambda one: (one[1], one[2] is not None, one[2] or 0)):
            key, event, created = identity
            if (event + DELAY if created is None else created) <= self.now:
                best[key] = (identity, self.source[identity])
        return best


def bits(read: ViewRead) -> list[tuple[Any, ...]]:
    """Return everything that a read says, floats as their bits."""
    columns: list[list[Any]] = [read.has_row.tolist(), read.versions.seq.tolist(), read.versions.run_id.tolist()]
    columns += [read.versions.event_ts.tolist(), read.versions.created_ts.tolist(), read.versions.tombstone.tolist()]
    columns += [read.nulls[name].tolist() for name in ("x", "s")]
    floats = np.where(read.nulls["x"], np.uint64(0), read.values["x"].view(np.uint64)).tolist()
    return list(zip(*columns, floats, read.values["s"].tolist(), strict=True))


EVENTS = st.integers(-5, 30)
CONTENT = st.tuples(st.none() | st.sampled_from(BITS), st.none() | st.sampled_from(["", "a", "日"]), st.booleans())
ROWS = st.lists(st.tuples(st.sampled_from(IDS), EVENTS, st.none() | st.integers(0, 8), CONTENT), max_size=6)
FUSES = st.builds(Fuse, st.none() | st.integers(0, 8), st.booleans())
STEPS = st.lists(st.tuples(ROWS, st.integers(1, 12), st.lists(FUSES, min_size=1, max_size=3)), min_size=1, max_size=4)
Step = tuple[list[tuple[int, int, int | None, tuple[int | None, str | None, bool]]], int, list[Fuse]]


def arrive(world: CrashingWorld, step: Step) -> None:
    """Add late rows, early rows and corrections to the source; a correction never takes back an older one."""
    rows, gap, _ = step
    world.clock.set(world.now + gap)
    for i, (key, event, wait, content) in enumerate(rows):
        identity = (key, event, None if wait is None else event + wait)
        mark = f"{world.now}.{i}.{len(world.source)}"
        text = None if content[1] is None else content[1] + mark
        past = world.past.setdefault(identity, set())
        # A content that the log has already is not new, and cannot win again (SEMANTICS 2.1.1).
        world.source[identity] = (content[0], mark if (content[0], text, content[2]) in past else text, content[2])
        past.add(world.source[identity])
    world.write_source()


def live_through(world: CrashingWorld, steps: list[Step]) -> list[tuple[int, list[bytes | None]]]:
    """Return each moment at which a run ended well, and the store then; the last run always ends well."""
    ended: dict[int, list[bytes | None]] = {}
    for step in [*steps, ([], 1, [Fuse(None, after=False)])]:
        arrive(world, step)
        before = world.known_rows()
        for fuse in step[2]:
            if world.outlives(Fuse(fuse.left, fuse.after)):
                ended[world.now] = world.rows()
        # Once known, always known since then: no later run moves it.
        assert before.items() <= world.known_rows().items()
    return list(ended.items())


@pytest.mark.timeout(600)  # only a failure takes so long, to find its smallest form
@FEWER
@given(STEPS)
def test_2_3_online_equals_offline_after_any_arrival_and_any_crash(
    connection: duckdb.DuckDBPyConnection, steps: list[Step]
) -> None:
    with state_folder() as state:
        world = CrashingWorld(root=state.parent, opened=connection, clock=ManualClock(0))
        ended = live_through(world, steps)
        codec = RowCodec(VIEW)
        for t, stored in ended:
            assert bits(world.offline(VIEW, *ASKED, t=t)) == bits(codec.decode(stored))
        for (_, stored), (later, _) in pairwise(ended):
            # Until the next run ends, training sees what the last one left.
            assert bits(world.offline(VIEW, *ASKED, t=later - 1)) == bits(codec.decode(stored))
        check_newest(world, codec.decode(ended[-1][1]))


def check_newest(world: CrashingWorld, read: ViewRead) -> None:
    newest = world.newest()
    for i, key in enumerate(IDS):
        if key not in newest:
            assert read.versions.seq[i] == -1
            continue
        (_, event, _), (raw, text, gone) = newest[key]
        assert read.versions.event_ts[i] == event
        assert bool(read.has_row[i]) is not gone
        if not gone:
            assert read.values["s"][i] == text
            assert bool(read.nulls["x"][i]) is (raw is None)
            assert raw is None or read.values["x"][i].tobytes() == struct.pack("<Q", raw)
