"""Contestants of decisions: events that come at a rate, and as many as a worker can take; and their parts alone."""

# ruff: noqa: PLC0415 - a contestant loads its own libraries, and nobody else's

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.contestant import ContestantError
from benchmarks.ingests import KEYS, payloads
from benchmarks.meter import Meter
from benchmarks.server import empty

RATE = 2_000
MODEL, STREAM, OUT = "fraud", "payments", "decisions"
_TICK_S, _WARM_S, _LOST_S = 0.01, 2.0, 10.0
_TREES, _ROWS, _CHUNK = 200, 2_000, 1_000


def sent_and_delivered(meter: Meter, *, folder: str, url: str, seconds: int) -> str:
    """Send through a Redis stream to a worker in another process; time from an event to its decision in the sink."""
    import redis

    from skewless.infra.online.redis_store import RedisWriter
    from skewless.infra.streams.backfill import Backfiller

    empty(url)
    state = Path(folder) / f"{time.time_ns()}"
    with _streams(state, url) as streams:
        _publish(streams)
        store = RedisWriter(url)
        Backfiller(streams=streams, store=store).build_missing(streams.plan.windows)
        store.close()
        with _working(state, url), redis.Redis.from_url(url) as client:
            waits: list[float] = []
            stop, seen = threading.Event(), [0]
            thread = threading.Thread(target=_receive, args=(client, waits, stop, seen))
            thread.start()
            sent = _send(streams, seconds, meter, seen)
            deadline = time.monotonic() + _LOST_S
            while seen[0] < sent and time.monotonic() < deadline:
                time.sleep(0.01)
            stop.set()
            thread.join()
            if seen[0] < sent:
                raise ContestantError(f"{sent - seen[0]} of {sent} events were never decided")
    kept = np.array(waits[int(RATE * _WARM_S) :])
    for name, share in (("p50", 50), ("p99", 99)):
        meter.note(name, float(np.percentile(kept, share)) * 1e3)
    return "delivered"


def _receive(client: Any, waits: list[float], stop: threading.Event, seen: list[int]) -> None:  # noqa: ANN401 - of redis
    last = "0"
    while not stop.is_set():
        for _, entries in client.xread({OUT: last}, count=10_000, block=50) or ():
            now_us = time.time_ns() // 1_000
            for last, entry in entries:  # noqa: B007 - the last one is used
                event_us = orjson.loads(entry[b"decision"])["event_time"]
                waits.append((now_us - _micros(event_us)) / 1e6)
            seen[0] += len(entries)


def _micros(text: str) -> int:
    from datetime import datetime

    return int(datetime.fromisoformat(text).timestamp() * 1e6)


def _send(streams: Any, seconds: int, meter: Meter, seen: list[int]) -> int:  # noqa: ANN401 - loaded by contestants
    rng, sender = np.random.default_rng(1), streams.sender(streams.sources()[0])
    sender.send([orjson.dumps(_event(rng))])
    deadline = time.monotonic() + 3 * _LOST_S
    while not seen[0]:
        if time.monotonic() > deadline:
            raise ContestantError("the worker did not start")
        time.sleep(0.01)
    count, begin = 1, time.perf_counter()
    for tick in range(int((seconds + _WARM_S) / _TICK_S)):
        time.sleep(max(0.0, begin + tick * _TICK_S - time.perf_counter()))
        events = [orjson.dumps(_event(rng)) for _ in range(int(RATE * _TICK_S))]
        sender.send(events)
        count += len(events)
    meter.note("rate", count / (time.perf_counter() - begin))
    sender.close()
    return count


def _event(rng: np.random.Generator) -> dict[str, Any]:
    keys = {name: int(rng.zipf(1.2) % count) for name, count in KEYS.items()}
    return {**keys, "amount": round(float(rng.gamma(2.0, 40.0)), 2), "ts": time.time_ns() // 1_000}


def ingest_alone(meter: Meter, *, url: str, n: int) -> str:
    """Take, log and apply events without a decision, on one core."""
    return _take(meter, url, n, decide=False)


def ingest_and_decide(meter: Meter, *, url: str, n: int) -> str:
    """The same with a decision of each event."""
    return _take(meter, url, n, decide=True)


def _take(meter: Meter, url: str, n: int, *, decide: bool) -> str:
    from skewless.infra.online.redis_store import RedisWriter
    from skewless.infra.streams.backfill import Backfiller
    from skewless.infra.streams.worker import Worker
    from skewless.serving.decisions.opening import Deciders
    from tests.memory_stream import MemoryBroker, MemorySender, MemoryStream

    empty(url)
    broker = MemoryBroker(1)
    MemorySender(broker).send(payloads(n))
    with tempfile.TemporaryDirectory() as name, _streams(Path(name), url) as streams:
        store = _publish(streams)
        online = RedisWriter(url)
        Backfiller(streams=streams, store=online).build_missing(streams.plan.windows)
        source = streams.sources()[0]
        writer = streams.writer(source, online)
        worker = Worker(
            streams=streams, source=source, writer=writer, open_stream=lambda owner: MemoryStream(broker, owner)
        )
        deciders = Deciders(streams=streams, store=store)
        decider = deciders.open(streams.plan, source, [_decisions(sinks=False)], online) if decide else None
        worker.set_decider(decider)
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        with meter.lap():
            while worker.counts.read < n or (decider is not None and decider.counts[0].lag):
                worker.step()
        os.sched_setaffinity(0, cores)
        decided = 0 if decider is None else decider.counts[0].decided
        worker.close()
        online.close()
        if worker.counts.accepted != n or decided != (n if decide else 0):
            raise ContestantError(f"{worker.counts.accepted} of {n} events were accepted, {decided} decided")
    return "taken"


def predict_alone(meter: Meter, *, url: str, n: int) -> str:
    """Read features of the events' entities and score them, a thousand rows at a time, with the prediction log."""
    from skewless.contract.request import ParsedRows
    from skewless.infra.online.redis_store import BlockingReader, RedisWriter
    from skewless.infra.online.service_vectors import FeatureReader
    from skewless.infra.packages.served_model import load_model
    from skewless.infra.streams.backfill import Backfiller

    rows = [orjson.loads(payload) for payload in payloads(n)]
    with tempfile.TemporaryDirectory() as name, _streams(Path(name), url) as streams:
        store = _publish(streams)
        online = RedisWriter(url)
        Backfiller(streams=streams, store=online).build_missing(streams.plan.windows)
        model = load_model(store, MODEL, "000001")
        reader = FeatureReader(model.plan, BlockingReader(url))
        with meter.lap():
            for first in range(0, n, _CHUNK):
                keys = {key: [row[key] for row in rows[first : first + _CHUNK]] for key in KEYS}
                read = reader.read(ParsedRows(keys=keys, fields={}), time.time_ns() // 1_000_000 * 1_000)
                model.runtime.score(read.matrix)
        online.close()
    return "taken"


@contextmanager
def _streams(state: Path, url: str) -> Iterator[Any]:
    from benchmarks.window_events import ALL, plan_of, view
    from skewless.contract.clock import SystemClock
    from skewless.contract.settings import Settings
    from skewless.infra.offline.engine import connect
    from skewless.infra.storage.project_state import ProjectState
    from skewless.infra.streams.streams import Streams

    views = [view(ALL, key=name, name=f"{name}_live") for name in KEYS]
    with connect(state / f"spill-{os.getpid()}", threads=1) as connection:
        yield Streams(
            plan=plan_of(views, list(KEYS)),
            state=ProjectState(state),
            settings=Settings(stream_partitions=1),  # one worker takes them all
            url=lambda: url,
            connection=connection,
            clock=SystemClock(),
        )


def _decisions(*, sinks: bool) -> Any:  # noqa: ANN401 - loaded by contestants
    from skewless.contract.decisions import DecisionStream
    from skewless.contract.sinks import RedisStreamSink

    sink = RedisStreamSink(name=OUT, stream=OUT, most_entries=100_000)
    return DecisionStream(name=STREAM, source="events", model=MODEL, sinks=(sink,) if sinks else ())


def _publish(streams: Any) -> Any:  # noqa: ANN401 - loaded by contestants
    """Write a model on all windows, and make it the champion; return the packages."""
    from datetime import timedelta

    import lightgbm

    from skewless.contract.labels import LabelSource
    from skewless.contract.settings import Settings
    from skewless.contract.spec import ModelSpec, Split
    from skewless.infra.packages.package import PackageContents, pin_plan
    from skewless.infra.packages.store import PackageStore
    from skewless.infra.packages.writer import write_package
    from skewless.infra.plans.needed_views import CHAMPION
    from skewless.infra.runtimes.certification import Reference

    plan, rng = streams.plan.select_service("all"), np.random.default_rng(3)
    rows = rng.gamma(2.0, 40.0, (_ROWS, len(plan.services[0].features)))
    labels = (rows[:, 0] + rng.normal(0, 20, _ROWS) > 80).astype(float)
    params = {"objective": "binary", "num_leaves": 15, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(params, lightgbm.Dataset(rows, labels), num_boost_round=_TREES)
    some = rows[:64]
    labels_of = LabelSource(path="labels", event_time="at", known_time="known", label="y")
    contents = PackageContents(
        model_name="model.txt",
        model=booster.model_to_string().encode(),
        spec=ModelSpec(
            name=MODEL, service="all", labels=labels_of, algorithm="lightgbm", split=Split(test=timedelta(days=1))
        ),
        plan=pin_plan(plan, {}),
        reference=Reference(some, *(np.asarray(booster.predict(some, raw_score=raw)) for raw in (True, False))),
        profile={},
        metrics={},
        fingerprint={},
    )
    store = PackageStore.of(streams.state, Settings())
    version = write_package(store, MODEL, contents).version
    store.aliases.move(MODEL, CHAMPION, expect=None, to=version, reason="", now_us=0)
    return store


@contextmanager
def _working(state: Path, url: str) -> Iterator[None]:
    """Let a worker work in another process for the length of a block."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=_work, args=(str(state), url, stop))
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join(20)


def _work(state: str, url: str, stop: threading.Event) -> None:
    from skewless.contract.settings import Settings
    from skewless.infra.online.redis_store import RedisWriter
    from skewless.infra.packages.store import PackageStore
    from skewless.infra.streams.worker import Worker
    from skewless.serving.decisions.opening import Deciders

    with _streams(Path(state), url) as streams:
        store, source = RedisWriter(url), streams.sources()[0]
        deciders = Deciders(streams=streams, store=PackageStore.of(streams.state, Settings()))
        decisions = [_decisions(sinks=True)]
        deciders.load(streams.plan, decisions, store)
        worker = Worker(
            streams=streams,
            source=source,
            writer=streams.writer(source, store),
            open_stream=streams.open_stream(source),
        )
        worker.set_decider(deciders.open(streams.plan, source, decisions, store))
        worker.run(lambda: not stop.is_set())
        deciders.close()
        store.close()
