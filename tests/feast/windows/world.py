"""A Feast project on our stores with windows over a stream, a batch view beside them, and a worker run by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from feast import FeatureStore

from skewless.contract.clock import OffsetClock
from skewless.infra.online.redis_store import RedisWriter
from skewless.infra.streams.worker import Worker
from skewless.project import Project

ONLINE = "skewless.infra.feast_plugins.online_store.SkewlessOnlineStore"
OFFLINE = "skewless.infra.feast_plugins.offline_store.SkewlessOfflineStore"
ENGINE = "skewless.infra.feast_plugins.engine.SkewlessComputeEngine"
NOW = 1_768_478_400_000_000  # 2026-01-15 12:00 UTC
SECOND = 1_000_000
MINUTE, HOUR = 60 * SECOND, 3_600 * SECOND
STAMP = pa.timestamp("us", tz="UTC")
NUMBERS = ["mean_delay_1h", "std_delay_1d", "late_1h", "landings_1h", "flights_7d"]
WINDOWED = [f"carrier_now:{name}" for name in NUMBERS]

DEFINITIONS = """\
from datetime import timedelta

import lateness
from feast import Entity, FeatureService, FeatureView, Field, FileSource, OnDemandFeatureView, PushSource
from feast import RequestSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING)
plane = Entity(name="plane", join_keys=["plane"], value_type=ValueType.INT64)
landings = PushSource(
    name="landings",
    batch_source=FileSource(path="data/landings.parquet", timestamp_field="landed_at"),
    tags={
        "skewless.columns": "carrier string, plane int64, flight int64, arr_delay float64, cancelled bool, "
        "landing_id string",
        "skewless.event_id": "landing_id",
        "skewless.scale.arr_delay": "1",
    },
)
carrier_now = StreamFeatureView(
    name="carrier_now",
    entities=[carrier],
    source=landings,
    timestamp_field="landed_at",
    aggregations=[
        Aggregation(column="arr_delay", function="mean", time_window=HOUR, name="mean_delay_1h"),
        Aggregation(column="arr_delay", function="std", time_window=DAY, name="std_delay_1d"),
        Aggregation(column="late", function="sum", time_window=HOUR, name="late_1h"),
        Aggregation(column="carrier", function="count", time_window=HOUR, name="landings_1h"),
        Aggregation(column="flight", function="count_distinct", time_window=7 * DAY, name="flights_7d"),
    ],
    udf=lateness.lateness,
    tags={
        "skewless.inputs": "arr_delay, cancelled",
        "skewless.derived": "late bool, flown bool",
        "skewless.where": "flown",
    },
)
plane_now = StreamFeatureView(
    name="plane_now",
    entities=[plane],
    source=landings,
    timestamp_field="landed_at",
    aggregations=[
        Aggregation(column="arr_delay", function="max", time_window=DAY, name="worst_delay_1d"),
        Aggregation(column="landed_at", function="last", time_window=DAY, name="last_landed_1d"),
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
carrier_facts = FeatureView(
    name="carrier_facts",
    entities=[carrier],
    schema=[Field(name="carrier", dtype=String), Field(name="fleet", dtype=Int64)],
    source=FileSource(
        path="data/facts.parquet", timestamp_field="event_time", created_timestamp_column="created"
    ),
)
mixed = FeatureService(name="mixed", features=[carrier_facts, carrier_now, plane_now])
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
class World:
    """The project as skewless and as Feast open it; the clock is in the test's hand."""

    project: Project

    @property
    def repo(self) -> Path:
        return self.project.repo

    @cached_property
    def store(self) -> FeatureStore:
        return FeatureStore(repo_path=str(self.repo))

    @cached_property
    def online(self) -> RedisWriter:
        return RedisWriter(self.project.redis_url)

    @cached_property
    def worker(self) -> Worker:
        streams = self.project.streams
        return streams.worker(streams.sources(["landings"])[0], self.online)

    def build(self) -> None:
        """Build the states of all windowed views from the log, as `skewless stream` does when it starts."""
        streams = self.project.streams
        streams.bootstrapper(self.online).ensure(self.project.applied.plan.windows)

    def work(self, until: int) -> None:
        """Let the worker take events until it has read so many."""
        for _ in range(60):
            self.worker.step()
            if self.worker.tally.read >= until and not any(lane.behind for lane in self.worker._lanes.values()):
                break
        assert self.worker.tally.read == until, self.worker.tally
        self.project.streams.bootstrapper(self.online).ensure(self.project.applied.plan.windows)

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


def write_repo(repo: Path, url: str, project: str, **offline: str) -> None:
    """Write the project and the table of its batch view."""
    (repo / "data").mkdir(parents=True)
    config = {
        "project": project,
        "provider": "local",
        "registry": "registry.db",
        "offline_store": {"type": OFFLINE, **offline},
        "online_store": {"type": ONLINE},
        "batch_engine": {"type": ENGINE},
        "entity_key_serialization_version": 3,
    }
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(config))
    OffsetClock.create(repo / "clock")
    (repo / "skewless.yaml").write_text(yaml.safe_dump({"redis_url": url, "clock": f"file:{repo}/clock"}))
    (repo / "definitions.py").write_text(DEFINITIONS)
    (repo / "lateness.py").write_text(LATENESS)
    times = pa.array([NOW - 9 * HOUR] * 2, pa.int64()).cast(STAMP)
    facts = {"carrier": ["AA", "UA"], "fleet": [950, 880], "event_time": times, "created": times}
    pq.write_table(pa.table(facts), repo / "data/facts.parquet")


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
