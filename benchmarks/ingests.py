"""Contestants of ingestion: our worker, and Feast's push; each on one core, with the server on another."""

# ruff: noqa: PLC0415 - each contestant loads its own libraries, and nobody else's

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.contestant import ContestantError
from benchmarks.meter import Meter

if TYPE_CHECKING:
    from skewless.infra.ingest.streams.worker import Worker

BATCH = 1_000
BATCHES, SINGLES = "batches", "one by one"
PARTS = ("decoding and judging", "writing the log", "updating states")
KEYS = {"card": 20_000, "shop": 2_000, "city": 200, "device": 50_000}
_RATE = 2_000  # events a second of their own time
_CHUNK = 20_000
_CHECKED = 200

_FEAST = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
from feast.types import Float64, Int64
from feast.value_type import ValueType

push = PushSource(name="events", batch_source=FileSource(path="data/none.parquet", timestamp_field="ts"))
entities = {name: Entity(name=name, join_keys=[name], value_type=ValueType.INT64) for name in %s}
globals().update(entities)
views = {
    f"{name}_last": FeatureView(
        name=f"{name}_last", entities=[entity], ttl=timedelta(0), source=push,
        schema=[Field(name=name, dtype=Int64), Field(name="amount", dtype=Float64)],
    )
    for name, entity in entities.items()
}
globals().update(views)
"""


def columns(n: int) -> dict[str, np.ndarray]:
    """Return n events: four keys, skewed, and an amount; their times follow each other."""
    rng = np.random.default_rng(21)
    made = {name: np.asarray(rng.zipf(1.2, n) % count, dtype=np.int64) for name, count in KEYS.items()}
    start = time.time_ns() // 1_000 - n * 1_000_000 // _RATE
    return {
        **made,
        "amount": np.round(rng.gamma(2.0, 40.0, n), 2),
        "ts": start + np.arange(n, dtype=np.int64) * 1_000_000 // _RATE,
    }


def payloads(n: int) -> list[bytes]:
    """Return the events as producers send them."""
    import orjson

    made = columns(n)
    names = list(made)
    rows = zip(*(made[name].tolist() for name in names), strict=True)
    return [orjson.dumps(dict(zip(names, row, strict=True))) for row in rows]


def memory_stream(meter: Meter, *, n: int, url: str) -> str:
    """Take events from a stream that costs nothing: what the worker itself can do; and where its time goes."""
    from tests.memory_stream import MemoryBroker, MemorySender, MemoryStream

    broker = MemoryBroker(1)
    MemorySender(broker).send(payloads(n))
    with _worker(url, lambda owner: MemoryStream(broker, owner)) as worker:
        spent = _watched()
        _work(meter, worker, n)
    for part in PARTS:
        meter.note(part, spent[part])
    return f"{n} events"


def redis_stream(meter: Meter, *, n: int, url: str) -> str:
    """Take events from Redis Streams, on the server that holds the states too."""
    from skewless.infra.ingest.streams.redis_link import RedisSender
    from skewless.infra.ingest.streams.redis_stream import RedisStream
    from skewless.infra.platform.storage.project_state import ProjectState

    sender = RedisSender(url, project="bench", source="events", n_partitions=1)
    made = payloads(n)
    for first in range(0, n, _CHUNK):
        sender.send(made[first : first + _CHUNK])
    sender.close()
    with tempfile.TemporaryDirectory() as name:
        database = ProjectState(Path(name)).database

        def open_stream(owner: Any) -> RedisStream:  # noqa: ANN401 - as in _worker
            return RedisStream(url, database=database, project="bench", source="events", n_partitions=1, owner=owner)

        with _worker(url, open_stream) as worker:
            _work(meter, worker, n)
    return f"{n} events"


def kafka_stream(meter: Meter, *, n: int, url: str, kafka: str) -> str:
    """Take events from a topic of Kafka, joining the group included; the client's threads share the worker's core."""
    from benchmarks.server import make_topic
    from skewless_kafka.client import KafkaSender
    from skewless_kafka.stream import KafkaStream

    topic = make_topic(kafka)
    sender, made = KafkaSender(kafka, topic), payloads(n)
    for first in range(0, n, _CHUNK):
        sender.send(made[first : first + _CHUNK])
    sender.close()
    with _worker(url, lambda owner: KafkaStream(kafka, topic, owner=owner, group=topic)) as worker:
        _work(meter, worker, n)
    return f"{n} events"


def feast_push(meter: Meter, *, repo: str, n: int, batches: int, singles: int) -> str:
    """Push events to four views of Feast on Redis: some thousands at once, then some one by one."""
    import pandas as pd
    from feast import FeatureStore

    store = FeatureStore(repo_path=repo)
    frame = pd.DataFrame(columns(BATCH * (batches + 1) + singles))
    frame["ts"] = pd.to_datetime(frame["ts"], unit="us", utc=True)
    store.push("events", frame[:BATCH])
    with meter.lap(BATCHES, times=batches):
        for i in range(1, batches + 1):
            store.push("events", frame[BATCH * i : BATCH * (i + 1)])
    rest = frame[BATCH * (batches + 1) :]
    with meter.lap(SINGLES, times=singles):
        for i in range(singles):
            store.push("events", rest[i : i + 1])
    return f"{n} events"


def write_feast_repo(repo: Path, online: str) -> None:
    """Write and apply Feast's own project."""
    from benchmarks.programs import run_feast

    (repo / "data").mkdir(parents=True)
    yaml = f"project: bench\nregistry: data/registry.db\nprovider: local\n{online}entity_key_serialization_version: 3\n"
    (repo / "feature_store.yaml").write_text(yaml)
    (repo / "definitions.py").write_text(_FEAST % list(KEYS))
    run_feast(repo, "apply")


@contextmanager
def _worker(url: str, open_stream: Callable[[Any], Any]) -> Iterator[Worker]:
    """Yield a worker with new states in an empty store, and hold its states against its log in the end."""
    from benchmarks.server import empty
    from benchmarks.window_events import ALL, plan_of, view
    from skewless.contract.clock import SystemClock
    from skewless.contract.settings import Settings
    from skewless.infra.ingest.streams.backfill import Backfiller
    from skewless.infra.ingest.streams.streams import Streams
    from skewless.infra.ingest.streams.worker import Worker
    from skewless.infra.platform.storage.project_state import ProjectState
    from skewless.infra.reads.offline.engine import connect
    from skewless.infra.reads.online.redis_store import RedisWriter

    views = [view(ALL, key=name, name=f"{name}_live") for name in KEYS]
    with tempfile.TemporaryDirectory() as name, connect(Path(name) / "spill") as connection:
        streams = Streams(
            plan=plan_of(views, list(KEYS)),
            state=ProjectState(Path(name)),
            settings=Settings(),
            url=lambda: url,
            connection=connection,
            clock=SystemClock(),
        )
        store = RedisWriter(url)
        Backfiller(streams=streams, store=store).build_missing(views)
        source = streams.sources()[0]
        writer = streams.writer(source, store)
        worker = Worker(streams=streams, source=source, writer=writer, open_stream=open_stream)
        yield worker
        check_states(streams)
        store.close()
    empty(url)


def _work(meter: Meter, worker: Worker, n: int) -> None:
    cores = os.sched_getaffinity(0)
    _pin({min(cores)})
    with meter.lap():
        while worker.counts.read < n:
            worker.step()
    worker.close()
    _pin(cores)
    if worker.counts.accepted != n:
        raise ContestantError(f"{worker.counts.accepted} of {n} events were accepted")


def _pin(cores: set[int]) -> None:
    """Let all threads of this process run on these cores alone; later ones inherit them."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it may end meanwhile
            os.sched_setaffinity(int(thread.name), cores)


def check_states(streams: Any) -> None:  # noqa: ANN401 - loaded by its contestants alone
    """Compare what some entities have online with the windows computed from the log.

    Raises:
        ContestantError: they differ.
    """
    import pyarrow as pa

    from skewless.contract.request import ParsedRows
    from skewless.infra.reads.offline.as_of import TIME
    from skewless.infra.reads.offline.views import OfflineViews
    from skewless.infra.reads.online.redis_store import BlockingReader
    from skewless.infra.reads.online.service_vectors import FeatureReader

    keys: dict[str, Any] = {name: list(range(_CHECKED)) for name in KEYS}
    t = time.time_ns() // 1_000_000 * 1_000
    reader = BlockingReader(streams.redis_url)
    online = FeatureReader(streams.plan, reader).read(ParsedRows(keys=keys, fields={}), t)
    reader.close()
    entities = pa.table({**keys, TIME: np.full(_CHECKED, t)})
    offline = OfflineViews(streams.state, streams.connection).read(streams.plan, entities, "event_time")
    for name, read in offline.items():
        seen = online.reads[name]
        if not np.array_equal(np.asarray(read.block), np.asarray(seen.block), equal_nan=True):
            raise ContestantError(f"view {name!r} differs online and offline")
        if not np.nansum(np.asarray(seen.block)) > 0:
            raise ContestantError(f"view {name!r} is empty")


def _watched() -> dict[str, float]:
    """Count the seconds that a worker spends in its parts."""
    from skewless.infra.ingest.streams.decode import Decoder
    from skewless.infra.ingest.streams.state_writer import StateWriter
    from skewless.infra.log.partition_log import PartitionLog

    spent = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(real)
        def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - of what is wrapped
            start = time.perf_counter()
            try:
                return real(*arguments, **keywords)
            finally:
                spent[part] += time.perf_counter() - start

        return call

    # In this process alone, which ends with its round: the parts have no clock of their own.
    Decoder.decode = timed(PARTS[0], Decoder.decode)  # type: ignore[method-assign]
    PartitionLog.append = timed(PARTS[1], PartitionLog.append)  # type: ignore[method-assign]
    StateWriter._apply = timed(PARTS[2], StateWriter._apply)  # type: ignore[method-assign]  # noqa: SLF001
    return spent
