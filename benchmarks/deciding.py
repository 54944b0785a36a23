"""Contestants of decisions: events that come at a rate, and as many as a worker can take; and their parts alone."""

# ruff: noqa: PLC0415 - a contestant loads its own libraries, and nobody else's

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from benchmarks import deciding_project as project
from benchmarks.contestant import ContestantError
from benchmarks.deciding_check import accepted_times, check_decisions, check_delivered
from benchmarks.ingests import KEYS
from benchmarks.meter import Meter
from benchmarks.server import empty

if TYPE_CHECKING:
    from skewless.infra.ingest.streams.streams import Streams
    from skewless.infra.ingest.streams.worker import Worker
    from tests.memory_stream import MemoryBroker

RATE = 2_000
QUANTILES = {"p50": 50, "p99": 99}
_TICK_S, _WARM_S, _LOST_S, _START_S = 0.01, 2.0, 10.0, 60.0
_WARM, _CHUNK = 2_000, 1_024
_Row = Mapping[str, Any]


def sent_and_delivered(meter: Meter, *, folder: str, url: str, seconds: int) -> str:
    """Send through a Redis stream to a worker in another process, which delivers to another Redis stream.

    Times from the acceptance of an event to its decision at a reader of the sink, and from the event's sending.
    """
    import redis

    empty(url)
    state = Path(folder) / f"{time.time_ns()}"
    with project.open_streams(state, url) as streams:
        project.publish_model(streams)
        project.build_states(streams, url)
        with project.decide_elsewhere(state, url) as worker, redis.Redis.from_url(url) as client:
            receiver = _Receiver(client)
            sent = _send(streams, seconds, meter, receiver, worker)
            receiver.stop(sent)
        messages = receiver.messages()
        decided = check_decisions(streams, 0, sent)
        check_delivered(decided, messages.keys())
        accepted_us = accepted_times(streams)
    kept = [message for message in messages.values() if message["position"] >= RATE * _WARM_S]
    for name, since_us in (
        ("accepted", [int(accepted_us[message["position"]]) for message in kept]),
        ("sent", [_micros(message["event_time"]) for message in kept]),
    ):
        waits_us = np.array([message["received_us"] for message in kept]) - np.array(since_us)
        for quantile, share in QUANTILES.items():
            meter.note(f"{name} {quantile}", float(np.percentile(waits_us, share)) / 1e3)
    return "delivered"


class _Receiver:
    """Reads the sink in a thread; messages are parsed when all are there, so that the reader costs little."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - redis-py's clients are untyped
        self._client, self._stop, self._batches = client, threading.Event(), list[tuple[int, Any]]()
        self.count = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self, n: int) -> None:
        """Wait for so many messages, and end."""
        deadline = time.monotonic() + _LOST_S
        while self.count < n and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stop.set()
        self._thread.join()

    def messages(self) -> dict[str, dict[str, Any]]:
        """Return each decision with the time of its first arrival, by its id."""
        messages: dict[str, dict[str, Any]] = {}
        for received_us, entries in self._batches:
            for _, entry in entries:
                message = orjson.loads(entry[b"decision"])
                messages.setdefault(message["id"], {**message, "received_us": received_us})
        return messages

    def _run(self) -> None:
        last = "0"
        while not self._stop.is_set():
            for _, entries in self._client.xread({project.OUT: last}, count=10_000, block=50) or ():
                self._batches.append((time.time_ns() // 1_000, entries))
                last = entries[-1][0]
                self.count += len(entries)


def _micros(text: str) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(text).timestamp() * 1e6)


def _send(streams: Streams, seconds: int, meter: Meter, receiver: _Receiver, worker: int) -> int:
    """Send events at the rate, once the worker has decided a first one; return their number."""
    rng, sender = np.random.default_rng(1), streams.sender(streams.sources()[0])
    sender.send([orjson.dumps(_event(rng))])
    deadline = time.monotonic() + _START_S
    while not receiver.count:
        if time.monotonic() > deadline:
            receiver.stop(0)
            raise ContestantError("the worker did not start")
        time.sleep(0.01)
    count, begin, cpu_s = 1, time.perf_counter(), _cpu_seconds(worker)
    for tick in range(int((seconds + _WARM_S) / _TICK_S)):
        time.sleep(max(0.0, begin + tick * _TICK_S - time.perf_counter()))
        events = [orjson.dumps(_event(rng)) for _ in range(int(RATE * _TICK_S))]
        sender.send(events)
        count += len(events)
    meter.note("rate", count / (time.perf_counter() - begin))
    meter.note("cpu", (_cpu_seconds(worker) - cpu_s) / count)
    sender.close()
    return count


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _event(rng: np.random.Generator) -> _Row:
    keys = {name: int(rng.zipf(1.2) % count) for name, count in KEYS.items()}
    return {**keys, "amount": round(float(rng.gamma(2.0, 40.0)), 2), "ts": time.time_ns() // 1_000}


def ingest_alone(meter: Meter, *, url: str, n: int, entities: int, windows: int) -> str:
    """Take, log and apply events without a decision, on one core.

    Args:
        n: number of events.
        entities: number of values of each key; all have an event before.
        windows: number of windows of each view.
    """
    return _take(meter, url, _events(n, entities), first=entities, windows=windows, decides=False)


def ingest_and_decide(meter: Meter, *, url: str, n: int, entities: int, windows: int) -> str:
    """Do the same with a decision of each event."""
    return _take(meter, url, _events(n, entities), first=entities, windows=windows, decides=True)


def predict_alone(meter: Meter, *, url: str, n: int, entities: int, windows: int) -> str:
    """Read the features of the events' entities, score and log them on one core: as many at once as are decided."""
    from skewless.infra.reads.online.redis_store import BlockingReader
    from skewless.infra.records.predictions.ids import PredictionIds

    rows = _events(n, entities)
    with tempfile.TemporaryDirectory() as name, _working(Path(name), url, windows) as (streams, worker, broker):
        _put(broker, rows[:entities])
        _step(worker, broker)
        predictor = _Predictor(streams, BlockingReader(url), PredictionIds())
        for chunk in _chunks(rows[entities : entities + _WARM]):
            predictor.predict(chunk)
        with _one_core(), meter.lap():
            for chunk in _chunks(rows[entities + _WARM :]):
                predictor.predict(chunk)
    return "taken"


class _Predictor:
    """Predicts as a server does, without its HTTP, and logs each call durably."""

    def __init__(self, streams: Streams, reader: Any, ids: Any) -> None:  # noqa: ANN401 - loaded by contestants
        from skewless.infra.reads.online.marker_history import MarkerHistory
        from skewless.infra.records.predictions.batches import ConstantColumns
        from skewless_decisions.decision_log import DecisionLog

        self._model, self._reader, self._ids = project.load_champion(streams), reader, ids
        self._model.windows.load_generations(reader.get(self._model.windows.pointers))
        self._history = MarkerHistory.from_runs(streams.state, [streams.plan], reader.on_connect)
        self._origin = self._model.origin
        self._log, self._constants = DecisionLog(streams.state), ConstantColumns(self._origin, "entities")

    def predict(self, rows: Sequence[_Row]) -> None:
        """Read, score and log."""
        import pyarrow as pa

        from skewless.infra.records.predictions.batches import to_batch
        from skewless.infra.records.predictions.record import PredictionBatch
        from skewless.serving.prediction.input_texts import ColumnRows, input_texts

        model, reader, now_us = self._model, self._model.reader, time.time_ns() // 1_000
        columns, t = (
            model.parser.parse_columns({key: [row[key] for row in rows] for key in KEYS}),
            now_us // 1_000 * 1_000,
        )
        request = model.parser.build_rows(columns)
        names = [name for name in reader.names(request.keys, request.n) if name is not None]
        stored, marks = self._reader.get_with_markers(names, reader.markers)
        vectors = reader.vectors(names, stored, self._history.check_markers(reader.markers, marks), t, request)
        record = PredictionBatch(
            origin=self._origin,
            ids=self._ids.take(t, len(rows)),
            t=t,
            asked_at=now_us,
            read_start=now_us,
            read_end=time.time_ns() // 1_000,
            skew_us=0,
            inputs=input_texts(ColumnRows(columns)),
            matrix=vectors.matrix,
            scores=model.runtime.score(vectors.matrix),
            status=vectors.status,
            versions=vectors.versions,
            applied=vectors.applied,
            watermarks=vectors.watermark,
        )
        self._log.append(pa.Table.from_batches([to_batch([record], self._constants)]), [], now_us)


def _take(meter: Meter, url: str, rows: Sequence[_Row], *, first: int, windows: int, decides: bool) -> str:
    """Take events in this process; those from the place ``first`` on are decided, and after a warm-up measured."""
    from skewless_decisions.opening import Deciders

    with tempfile.TemporaryDirectory() as name, _working(Path(name), url, windows) as (streams, worker, broker):
        worker.writer.follows_events = True  # from the beginning: no state is rolled up beyond a later event
        _put(broker, rows[:first])
        _step(worker, broker)
        deciders = Deciders(streams=streams, store=project.package_store(streams))
        if decides:
            decisions = [project.decision_stream(has_sink=False)]
            store = worker.writer.store
            worker.set_decider(deciders.open(streams.plan, worker.source, decisions, store))
        _put(broker, rows[first : first + _WARM])
        _step(worker, broker)
        _put(broker, rows[first + _WARM :])
        with _one_core(), meter.lap():
            _step(worker, broker)
        worker.close()
        deciders.close()
        if worker.counts.accepted != len(rows):
            raise ContestantError(f"{worker.counts.accepted} of {len(rows)} events were accepted")
        if decides:
            check_decisions(streams, first, len(rows) - first)
    return "taken"


def _events(n: int, entities: int) -> list[_Row]:
    """Return an event of each entity, some to warm up, and n further ones, at the rate until now.

    Entities are equally frequent: a worker reads the state of a frequent one once, a server for each request.
    """
    rng, n = np.random.default_rng(21), n + _WARM
    keys = {name: np.append(rng.permutation(entities), rng.integers(0, entities, n)) for name in KEYS}
    n += entities
    start = time.time_ns() // 1_000 - n * 1_000_000 // RATE
    columns = {
        **keys,
        "amount": np.round(rng.gamma(2.0, 40.0, n), 2),
        "ts": start + np.arange(n, dtype=np.int64) * 1_000_000 // RATE,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


@contextmanager
def _working(state: Path, url: str, windows: int) -> Iterator[tuple[Streams, Worker, MemoryBroker]]:
    """Yield streams, their worker in this process, and the broker in memory that it reads."""
    from skewless.infra.ingest.streams.worker import Worker
    from skewless.infra.reads.online.redis_store import RedisWriter
    from tests.memory_stream import MemoryBroker, MemoryStream

    empty(url)
    broker = MemoryBroker(1)
    with project.open_streams(state, url, windows) as streams:
        project.publish_model(streams)
        project.build_states(streams, url)
        store, source = RedisWriter(url), streams.sources()[0]
        yield (
            streams,
            Worker(
                streams=streams,
                source=source,
                writer=streams.writer(source, store),
                open_stream=lambda owner: MemoryStream(broker, owner),
            ),
            broker,
        )
        store.close()


def _put(broker: MemoryBroker, rows: Sequence[_Row]) -> None:
    from tests.memory_stream import MemorySender

    MemorySender(broker).send([orjson.dumps(row) for row in rows])


def _step(worker: Worker, broker: MemoryBroker) -> None:
    """Let the worker take, apply and decide all events."""
    end = len(broker.log(0))
    while worker.counts.read < end or any(counts.lag for counts in (worker.decider.counts if worker.decider else ())):
        worker.step()


def _chunks(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    for first in range(0, len(rows), _CHUNK):
        yield rows[first : first + _CHUNK]


@contextmanager
def _one_core() -> Iterator[None]:
    """Let this process use one core; the server has the other."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
