"""The contestant of visibility: sends events at a rate, and watches when marked ones are seen."""

# ruff: noqa: PLC0415 - a contestant loads its own libraries, and nobody else's

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.contestant import ContestantError
from benchmarks.deciding_check import accepted_times
from benchmarks.ingests import KEYS, check_states
from benchmarks.meter import Meter
from benchmarks.server import empty, make_topic
from skewless.infra.platform.storage.project_state import ProjectState

RATE = 2_000
_TICK_S = 0.01
_MARKED_EVERY = 5  # ticks
_LOST_S = 10.0


def sent_and_seen(meter: Meter, *, folder: str, url: str, seconds: int, kafka: str = "") -> str:
    """Send through a stream to a worker in another process; time from the send to the read that sees it.

    Args:
        kafka: address of the broker with the topic; empty: a Redis stream.
    """
    from benchmarks.window_events import ALL, plan_of, view
    from skewless.contract.clock import SystemClock
    from skewless.contract.settings import Settings
    from skewless.infra.ingest.streams.backfill import Backfiller
    from skewless.infra.ingest.streams.streams import Streams
    from skewless.infra.reads.offline.engine import connect
    from skewless.infra.reads.online.redis_store import BlockingReader, RedisWriter
    from skewless.infra.reads.online.service_vectors import FeatureReader

    empty(url)  # the states of the round before would be seen at once
    plan = plan_of([view(ALL, key=name, name=f"{name}_live") for name in KEYS], list(KEYS))
    if kafka:
        (source,) = plan.sources
        plan = replace(plan, sources=(replace(source, kind="kafka", servers=kafka, topic=make_topic(kafka)),))
    with connect(Path(folder) / "spill") as connection:
        streams = Streams(
            plan=plan,
            state=ProjectState(Path(folder) / f"{time.time_ns()}"),
            settings=Settings(),
            url=lambda: url,
            connection=connection,
            clock=SystemClock(),
        )
        store = RedisWriter(url)
        Backfiller(streams=streams, store=store).build_missing(plan.windows)
        store.close()
        with _working(streams):
            reader = FeatureReader(streams.plan, BlockingReader(url))
            waits = _sent(streams, reader, seconds, meter)
            _wait_for_log(streams, meter)
        check_states(streams)
    meter.note("p50", float(np.percentile(waits, 50)) * 1e3)
    meter.note("p99", float(np.percentile(waits, 99)) * 1e3)
    return f"{len(waits)} of {int(meter.facts['events'])} events seen"


def _sent(streams: Any, reader: Any, seconds: int, meter: Meter) -> list[float]:  # noqa: ANN401 - loaded by contestants
    rng, sender = np.random.default_rng(1), streams.sender(streams.sources()[0])
    waiting: dict[int, float] = {}
    waits: list[float] = []
    _warm(sender, reader, rng)
    count, ticks, begin = 0, int(seconds / _TICK_S), time.perf_counter()
    for tick in range(ticks):
        due = begin + tick * _TICK_S
        while time.perf_counter() < due or (tick == ticks - 1 and waiting):
            _look(reader, waiting, waits)
            if time.perf_counter() - due > _LOST_S:
                raise ContestantError(f"{len(waiting)} events were never seen")
            time.sleep(0.001)
        events = [_event(rng) for _ in range(int(RATE * _TICK_S))]
        if tick % _MARKED_EVERY == 0 and tick < ticks - 1:
            key = 10_000_000 + tick
            if _count(reader, key):
                raise ContestantError(f"event {key} was seen before it was sent")
            events[-1]["device"] = key
            waiting[key] = time.perf_counter()
        sender.send([orjson.dumps(event) for event in events])
        count += len(events)
    meter.note("rate", count / (time.perf_counter() - begin))
    meter.note("events", count + 1)
    sender.close()
    return waits


def _wait_for_log(streams: Any, meter: Meter) -> None:  # noqa: ANN401 - loaded by contestants
    """Wait until the log has accepted all events, each once."""
    deadline, n, sent = time.perf_counter() + _LOST_S, 0, int(meter.facts["events"])
    while n < sent and time.perf_counter() < deadline:
        time.sleep(0.05)
        n = len(accepted_times(streams))
    if n != sent:
        raise ContestantError(f"{n} of {sent} events were accepted")


def _count(reader: Any, key: int) -> float:  # noqa: ANN401 - loaded by contestants alone
    from skewless.contract.request import ParsedRows

    ask = ParsedRows(keys={name: [key if name == "device" else 0] for name in KEYS}, fields={})
    read = reader.read(ask, time.time_ns() // 1_000_000 * 1_000).reads["device_live"]
    return float(read.values["count_1h"][0])


def _warm(sender: Any, reader: Any, rng: np.random.Generator) -> None:  # noqa: ANN401 - loaded by contestants alone
    """Wait until the worker is there."""
    first = {**_event(rng), "device": 9_999_999}
    sender.send([orjson.dumps(first)])
    waiting, since = {9_999_999: time.perf_counter()}, time.perf_counter()
    while waiting:
        _look(reader, waiting, [])
        if time.perf_counter() - since > 2 * _LOST_S:
            raise ContestantError("the worker did not start")
        time.sleep(0.01)


def _look(reader: Any, waiting: dict[int, float], waits: list[float]) -> None:  # noqa: ANN401 - as above
    from skewless.contract.request import ParsedRows

    if not waiting:
        return
    keys = list(waiting)
    ask = ParsedRows(keys={name: keys if name == "device" else [0] * len(keys) for name in KEYS}, fields={})
    seen = reader.read(ask, time.time_ns() // 1_000_000 * 1_000).reads["device_live"]
    now = time.perf_counter()
    for key, count in zip(keys, seen.values["count_1h"].tolist(), strict=True):
        if count == 1.0:
            waits.append(now - waiting.pop(key))


def _event(rng: np.random.Generator) -> dict[str, Any]:
    keys = {name: int(rng.integers(0, count)) for name, count in KEYS.items()}
    return {**keys, "amount": round(float(rng.gamma(2.0, 40.0)), 2), "ts": time.time_ns() // 1_000}


def _working(streams: Any) -> Any:  # noqa: ANN401 - a context manager
    """Return a context in which a worker works in another process."""
    import multiprocessing
    from contextlib import contextmanager

    @contextmanager
    def working() -> Any:  # noqa: ANN401 - an iterator
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        place = {"plan": streams.plan.as_dict(), "state": str(streams.state.folder), "url": streams.redis_url}
        process = context.Process(target=_worker, args=(place, stop))
        process.start()
        try:
            yield
        finally:
            stop.set()
            process.join(20)

    return working()


def _worker(place: dict[str, Any], stop: threading.Event) -> None:
    from skewless.contract.clock import SystemClock
    from skewless.contract.plan import FeaturePlan
    from skewless.contract.settings import Settings
    from skewless.infra.ingest.streams.streams import Streams
    from skewless.infra.ingest.streams.worker import Worker
    from skewless.infra.reads.offline.engine import connect
    from skewless.infra.reads.online.redis_store import RedisWriter

    state = Path(place["state"])
    with connect(state / "spill-of-worker") as connection:
        streams = Streams(
            plan=FeaturePlan.from_dict(place["plan"]),
            state=ProjectState(state),
            settings=Settings(),
            url=lambda: str(place["url"]),
            connection=connection,
            clock=SystemClock(),
        )
        store = RedisWriter(place["url"])
        source = streams.sources()[0]
        writer = streams.writer(source, store)
        worker = Worker(streams=streams, source=source, writer=writer, open_stream=streams.open_stream(source))
        worker.run(lambda: not stop.is_set())
        store.close()
