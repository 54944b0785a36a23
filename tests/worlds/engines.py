"""A project whose reads an engine can compute: latest-value views, and windows over made-up events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewless.contract.dtypes import DType
from skewless.contract.plan import FeaturePlan
from skewless.contract.rows import ViewRead
from skewless.contract.settings import Settings
from skewless.infra.log.log_columns import EVENT, INGEST, KNOWN_AT, REJECT
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.engines.engine import Engine
from skewless.infra.reads.engines.port import Executor
from skewless.infra.reads.engines.results import FOLDER
from skewless.infra.reads.engines.view_reads import EngineViews
from skewless.infra.reads.offline.as_of import TIME
from tests.windows.cases import make_window_view
from tests.worlds.shop import DAY, END, PLAN, Shop, open_shop

WINDOWS = replace(make_window_view({"id": DType.INT64}), name="now")
TWO_KEYS = replace(make_window_view({"id": DType.INT64, "k": DType.STRING}, filtered=True), name="pairs")
ALL = replace(PLAN, windows=(WINDOWS, TWO_KEYS))
_MOMENT = 5_000_000  # windows of this view have edges every five seconds


@dataclass(kw_only=True)
class EngineWorld:
    """A filled project; ``views`` reads it on an engine, whatever the size of the work.

    Args:
        size: keys and times are as many times more.
    """

    shop: Shop
    rng: np.random.Generator
    size: int = 1

    @property
    def state(self) -> ProjectState:
        return ProjectState(self.shop.state)

    def views(self, executor: Executor, **settings: object) -> EngineViews:
        own = Settings(**{"state": "state", "engine_rows": 0, "threads": 1, **settings})
        engine = Engine(open=lambda: executor, repo=self.shop.root, state=self.state, settings=own)
        return EngineViews(self.state, self.shop.connection, engine)

    def entities(self, n: int) -> pa.Table:
        """Return rows of hot, cold, unknown and null keys at moments that events have, too."""
        keys = self._keys(n)
        texts = pa.array(self.rng.choice(["a", "b", "日|{"], n), mask=self.rng.random(n) < 0.1)
        t = END - self.rng.integers(0, 40 * self.size, n) * _MOMENT
        t[::3] = self.rng.integers(0, 40, len(t[::3])) * DAY
        return pa.table({"id": keys, "k": texts, TIME: t})

    def events(self, n: int) -> pa.Table:
        """Return events with ties, lateness, nulls and rejected rows."""
        rng = self.rng
        ts = END - rng.integers(0, 40 * self.size, n) * _MOMENT + rng.choice([0, 0, 0, 1, -1, 1_500], n)
        late = np.where(rng.random(n) < 0.3, rng.integers(0, 60, n) * _MOMENT, 1_000_000)
        nulls: Sequence[np.ndarray] = [rng.random(n) < 0.1 for _ in range(5)]
        return pa.table(
            {
                "id": self._keys(n),
                "k": pa.array(rng.choice(["a", "b", "日|{"], n), mask=nulls[0]),
                "s": pa.array(rng.choice(["u", "v", ""], n), mask=nulls[0]),
                "x": pa.array(np.round(rng.normal(size=n), 3), mask=nulls[1]),
                "y": pa.array(rng.choice([0.0, -0.0, np.inf, np.nan, 1e300], n), mask=nulls[2]),
                "n": pa.array(rng.integers(-(2**53) - 9, 2**53 + 9, n), mask=nulls[3]),
                EVENT: ts,
                INGEST: ts,
                REJECT: pa.array(["bad"] * n, mask=rng.random(n) > 0.05),
                KNOWN_AT: pa.array(ts + late, mask=nulls[4]),
            }
        )

    def _keys(self, n: int) -> pa.Array:
        """Return keys of which one has half of all rows, and some are null."""
        keys = np.where(self.rng.random(n) < 0.5, 3, self.rng.integers(0, 60 * self.size, n))
        return pa.array(keys, pa.int64(), mask=self.rng.random(n) < 0.05)


@contextmanager
def open_engine_world(folder: Path, events: int = 3_000) -> Iterator[EngineWorld]:
    """A filled project below a folder, with two partitions of events."""
    rng = np.random.default_rng(5)
    with open_shop(folder, fewest=1) as shop:
        world = EngineWorld(shop=shop, rng=rng, size=max(1, events // 3_000))
        for partition in ("events/s/ab/0", "events/s/ab/1"):
            log = PartitionLog(world.state, partition)
            for _ in range(3):
                log.append(world.events(events // 6))
            # Of the last rows, only an end is recorded; of the very last, not even that.
            last = log.append(world.events(50).drop_columns([KNOWN_AT]))
            log.record_end(last.first, last.last, END)
            log.append(world.events(20).drop_columns([KNOWN_AT]))
        yield world


def plan_of(buckets: int, plan: FeaturePlan = ALL) -> FeaturePlan:
    return replace(plan, buckets=buckets)


def bits_of(reads: dict[str, ViewRead]) -> dict[str, list[bytes]]:
    """Return all that counts of reads, to the last bit."""
    return {name: _bits(read) for name, read in reads.items()}


def leftovers(world: EngineWorld) -> list[str]:
    """Return what jobs have left in the storage, the database and the spill folder."""
    documents = Documents(world.state.database, "task_result").names()
    spilled = [path.name for path in (world.state / "spill").glob("*-*") if not _is_running(path)]
    return [item.name for item in world.state.storage.list_objects(FOLDER)] + documents + spilled


def _is_running(spill: Path) -> bool:
    """Say whether the worker of a spill folder still lives, and keeps it."""
    return Path("/proc", spill.name.rpartition("-")[2]).exists()


def _bits(read: ViewRead) -> list[bytes]:
    found = [read.has_row.tobytes(), repr(read.unavailable).encode()]
    versions = read.versions
    found += [
        np.ascontiguousarray(part).tobytes()
        for part in (versions.event_ts, versions.created_ts, versions.seq, versions.run_id, versions.tombstone)
    ]
    for name, values in read.values.items():
        null = read.nulls[name]
        found.append(null.tobytes())
        shown = values[~null]
        found.append(repr(shown.tolist()).encode() if shown.dtype == object else shown.tobytes())
    for each in (read.mask, read.block):
        found.append(b"" if each is None else np.ascontiguousarray(each).tobytes())
    return found
