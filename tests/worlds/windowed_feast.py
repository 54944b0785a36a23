"""The windowed project with Feast on our stores, two windowed views, and a worker run by hand; its log is empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from skewless.contract.clock import OffsetClock
from skewless.contract.windows.hops import SECOND
from skewless.infra.ingest.streams.backfill import Backfiller
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.reads.online.redis_store import RedisWriter
from skewless.project import Project
from skewless_feast.feature_store import SkewlessFeatureStore
from tests.worlds import windowed
from tests.worlds.feast_repo import ENGINE, OFFLINE, ONLINE
from tests.worlds.windowed import MINUTE, NOW

NUMBERS = ["mean_delay_1h", "landings_1h", "std_delay_1d", "late_1h", "flights_7d"]
WINDOWED = [f"carrier_now:{name}" for name in NUMBERS]

# Events have more columns and an id; their view is filtered, and has more features.
LANDINGS = windowed.LANDINGS.replace(
    windowed.COLUMNS,
    '"skewless.event_id": "landing_id", "skewless.columns": "carrier string, plane int64, flight int64, '
    "arr_delay float64, cancelled bool, landing_id string",
)
CARRIER_NOW = windowed.CARRIER_NOW.replace(
    "    ],\n",
    """\
        Aggregation(column="arr_delay", function="std", time_window=DAY, name="std_delay_1d"),
        Aggregation(column="late", function="sum", time_window=HOUR, name="late_1h"),
        Aggregation(column="flight", function="count_distinct", time_window=7 * DAY, name="flights_7d"),
    ],
    udf=lateness.lateness,
    tags={
        "skewless.inputs": "arr_delay, cancelled",
        "skewless.derived": "late bool, flown bool",
        "skewless.where": "flown",
    },
""",
)
PLANE_NOW = """\
plane = Entity(name="plane", join_keys=["plane"], value_type=ValueType.INT64)
plane_now = StreamFeatureView(
    name="plane_now",
    entities=[plane],
    source=landings,
    timestamp_field="landed_at",
    aggregations=[
        Aggregation(column="arr_delay", function="max", time_window=DAY, name="worst_delay_1d"),
        Aggregation(column="landed_at", function="last", time_window=DAY, name="last_landed_1d"),
        Aggregation(column="arr_delay", function="last_3", time_window=DAY, name="delays"),
    ],
)
asking = RequestSource(
    name="asking",
    schema=[Field(name="asked_at", dtype=UnixTimestamp)],
    tags={"skewless.prediction_time": "asked_at"},
)
recency = OnDemandFeatureView(
    name="recency",
    sources=[asking, plane_now[["last_landed_1d"]]],
    schema=[Field(name="seconds_since_last", dtype=Float64)],
    mode="python",
    udf=lateness.recency,
    udf_string="",
)
mixed = FeatureService(name="mixed", features=[facts, carrier_now, plane_now])
"""
LATENESS = """\
import numpy as np


def lateness(events):
    delay = np.asarray(events["arr_delay"], dtype=np.float64)
    return {"late": delay > 15, "flown": np.asarray(events["cancelled"]) != 1}


def recency(inputs):
    return {"seconds_since_last": (inputs["asked_at"] - inputs["last_landed_1d"]) / 1e6}
"""


@dataclass(kw_only=True)
class WindowedFeastProject:
    """The project as skewless and as Feast open it; the clock is in the test's hand."""

    project: Project

    @property
    def repo(self) -> Path:
        return self.project.repo

    @cached_property
    def store(self) -> SkewlessFeatureStore:
        return SkewlessFeatureStore(repo_path=str(self.repo))

    @cached_property
    def online(self) -> RedisWriter:
        return RedisWriter(self.project.redis_url)

    @cached_property
    def worker(self) -> Worker:
        streams = self.project.streams
        (source,) = streams.sources(["landings"])
        writer = streams.writer(source, self.online)
        return Worker(streams=streams, source=source, writer=writer, open_stream=streams.open_stream(source))

    def build(self) -> None:
        """Build the states of all windowed views from the log, as `skewless stream` does when it starts."""
        Backfiller(streams=self.project.streams, store=self.online).build_missing(self.project.applied.plan.windows)

    def work(self, until: int) -> None:
        """Let the worker take events until it has read so many."""
        for _ in range(60):
            self.worker.step()
            if self.worker.counts.read >= until and not any(
                partition_worker.behind for partition_worker in self.worker._partition_workers.values()
            ):
                break
        assert self.worker.counts.read == until, self.worker.counts
        Backfiller(streams=self.project.streams, store=self.online).build_missing(self.project.applied.plan.windows)

    def now_us(self) -> int:
        return self.project.clock.now_us()

    def close(self) -> None:
        opened = self.__dict__
        if "worker" in opened:
            self.worker.close()
        if "store" in opened:
            provider: Any = self.store._get_provider()
            provider.online_store.close_connections()
        if "online" in opened:
            self.online.close()
        self.project.close()


def open_windowed(repo: Path, url: str, **offline: str) -> WindowedFeastProject:
    """Write and apply a project of a name of its own, whose clock the test moves."""
    (repo / "data").mkdir(parents=True)
    config = {
        "project": f"w{uuid4().hex}",
        "provider": "local",
        "registry": "registry.db",
        "offline_store": {"type": OFFLINE, **offline},
        "online_store": {"type": ONLINE},
        "batch_engine": {"type": ENGINE},
        "entity_key_serialization_version": 3,
    }
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(config))
    OffsetClock.create(repo / "clock").set(NOW)
    (repo / "skewless.yaml").write_text(yaml.safe_dump({"redis_url": url, "clock": f"file:{repo}/clock"}))
    views = (LANDINGS, CARRIER_NOW, windowed.FACTS, windowed.SERVICE, PLANE_NOW)
    (repo / "definitions.py").write_text("".join(("import lateness\n", windowed.HEAD, *views)))
    (repo / "lateness.py").write_text(LATENESS)
    windowed.write_facts(repo)
    project = Project(repo)
    project.apply()
    return WindowedFeastProject(project=project)


def landing(number: int, carrier: str | None, ago_us: int, now_us: int, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - of any type
    """Return an event that happened some time before now."""
    row = {"carrier": carrier, "plane": number % 3, "flight": number, "arr_delay": 1.5 * number, "cancelled": False}
    return {**row, "landing_id": f"l{number}", "landed_at": now_us - ago_us, **values}


def some(n: int, now_us: int) -> list[dict[str, Any]]:
    """Return events of two carriers, some of them late, cancelled or without a delay."""
    return [
        landing(
            i,
            ["AA", "UA"][i % 2],
            i * 7 * MINUTE + SECOND,
            now_us,
            arr_delay=None if i % 5 == 3 else 40.5 - 3 * i,
            cancelled=i % 7 == 6,
        )
        for i in range(n)
    ]


def columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return rows as columns."""
    return {name: [row[name] for row in rows] for name in rows[0]}
