"""A project with windows over a stream whose history lies in a file, a batch view, and a model on both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.clock import OffsetClock
from skewless.contract.windows.hops import SECOND
from skewless.infra.log.readers import release_reader
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.private_server import PrivateServer
from tests.worlds.built_once import close_databases
from tests.worlds.command_line import done
from tests.worlds.edits import edit
from tests.worlds.latest import times

NOW = 1_768_478_400_000_000  # 2026-01-15 12:00 UTC
MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
STAMP = pa.timestamp("us", tz="UTC")

CONFIG = """\
project: air
provider: local
registry: .skewless/registry.db
offline_store:
  type: file
online_store: null
entity_key_serialization_version: 3
"""
HEAD = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, KafkaSource, OnDemandFeatureView, PushSource
from feast import RequestSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.data_format import AvroFormat, JsonFormat
from feast.types import Bool, Float32, Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING)
"""
COLUMNS = '"skewless.columns": "carrier string, arr_delay float64'
LANDINGS = f"""\
landings = PushSource(
    name="landings",
    batch_source=FileSource(
        path="data/landings.parquet", timestamp_field="landed_at", created_timestamp_column="written"
    ),
    tags={{{COLUMNS}", "skewless.scale.arr_delay": "1"}},
)
"""
MEAN = 'Aggregation(column="arr_delay", function="mean", time_window=HOUR, name="mean_delay_1h"),'
COUNT = 'Aggregation(column="carrier", function="count", time_window=HOUR, name="landings_1h"),'
CARRIER_NOW = f"""\
carrier_now = StreamFeatureView(
    name="carrier_now",
    entities=[carrier],
    source=landings,
    timestamp_field="landed_at",
    aggregations=[
        {MEAN}
        {COUNT}
    ],
)
"""
FACTS = """\
facts = FeatureView(
    name="facts",
    entities=[carrier],
    schema=[Field(name="carrier", dtype=String), Field(name="fleet", dtype=Float64)],
    source=FileSource(path="data/facts.parquet", timestamp_field="event_time", created_timestamp_column="created"),
)
"""
SERVICE = 'service = FeatureService(name="air", features=[carrier_now, facts])\n'
MODELS = """\
from datetime import timedelta

from skewless.contract.labels import LabelSource
from skewless.contract.spec import Gate, ModelSpec, Split

MODELS = [
    ModelSpec(
        name="late",
        service="air",
        labels=LabelSource(path="data/labels.parquet", event_time="asked_at", known_time="known_at", label="late"),
        algorithm="lightgbm",
        split=Split(test=timedelta(hours=6)),
        params={"num_leaves": 3, "min_data_in_leaf": 5},
        rounds=3,
        gate=Gate(metric="auc", floor=0.0, tolerance=1.0),
    ),
]
"""
CARRIERS = ("AA", "UA", "日本")


def write_repo(repo: Path) -> Path:
    """Write the project as of ``NOW``; one of ten events was written 20 minutes after it happened."""
    (repo / "data").mkdir(parents=True)
    definitions = HEAD + LANDINGS + CARRIER_NOW + FACTS + SERVICE
    texts = {"feature_store.yaml": CONFIG, "definitions.py": definitions, "models.py": MODELS}
    texts["skewless.yaml"] = f"clock: file:{repo}/clock\nthreads: 1\n"
    for name, text in texts.items():
        (repo / name).write_text(text)
    OffsetClock.create(repo / "clock").set(NOW)
    n = 600
    landed = [NOW - DAY + i * 144 * SECOND for i in range(n)]
    delays = [20 * MINUTE if i % 10 == 0 else SECOND for i in range(n)]
    _write(
        repo / "data/landings.parquet",
        carrier=[CARRIERS[i % 3] for i in range(n)],
        arr_delay=[0.5 * (i % 41) - 5 for i in range(n)],
        landed_at=times(*landed),
        written=times(*(at + delay for at, delay in zip(landed, delays, strict=True))),
    )
    write_facts(repo)
    asked = [NOW - DAY + i * 96 * SECOND for i in range(900)]
    _write(
        repo / "data/labels.parquet",
        carrier=[CARRIERS[i % 3] for i in range(900)],
        asked_at=times(*asked),
        known_at=times(*asked),
        # The fleet tells them apart: AA is late most often.
        late=[float(i % 41 > 10 + 10 * (i % 3)) for i in range(900)],
    )
    return repo


def write_facts(repo: Path) -> None:
    """Write the table of the batch view."""
    long_ago = times(*[NOW - 9 * DAY] * 3)
    _write(
        repo / "data/facts.parquet", carrier=CARRIERS, fleet=[950.0, 880.5, 3.0], event_time=long_ago, created=long_ago
    )


def trained_repo(repo: Path, settings: str) -> Path:
    """Write the project with more settings, and bring it to its first champion, which need not beat a constant."""
    write_repo(repo)
    with (repo / "skewless.yaml").open("a") as file:
        file.write(settings)
    edit(repo, "tolerance=1.0", "tolerance=1.0, beat_baseline=False", file="models.py")
    for verb in ("apply", "import", "backfill", "materialize", "train"):
        done(verb, "--repo", repo)
    return repo


@contextmanager
def copied_repo(closed: Path, repo: Path) -> Iterator[Path]:
    """Copy a project that no process has open; its private server, if it gets one, ends with the block."""
    release_reader(ProjectState(closed / ".skewless").database)  # a copy would have the lease of this process
    close_databases()
    shutil.copytree(closed, repo)
    edit(repo, str(closed), str(repo), file="skewless.yaml")
    yield repo
    PrivateServer(repo / ".skewless").stop()


def _write(path: Path, **columns: object) -> None:
    pq.write_table(pa.table(columns), path)
