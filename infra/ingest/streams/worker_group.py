"""The stream workers of one process: a thread per event source, one for plans and housekeeping, one for heartbeats.

The Prometheus metrics of stream workers are described in docs/metrics.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from skewless.contract.decisions import DecisionStream
from skewless.contract.errors import SkewlessError
from skewless.contract.windows.view import EventSource
from skewless.infra.definitions.plans.applied_plan import read_plan_number, read_valid
from skewless.infra.ingest.streams.backfill import Backfiller, Housekeeper
from skewless.infra.ingest.streams.decider import DeciderPool, DecisionCounts
from skewless.infra.ingest.streams.port import OpenStream
from skewless.infra.ingest.streams.source_counts import SourceCounts
from skewless.infra.ingest.streams.streams import Assignment, Streams
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.platform.host.processes import SILENT_S, ProcessRecord
from skewless.infra.platform.telemetry.count_metrics import collect_counts
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.online.store import open_online_store

_POLL_S = 1.0
_HOUSEKEEPING_S = 60.0
_HOUSEKEEPING_FILES = 600  # or earlier, so that readers of the log never open many more new files
_IDLE_S = 0.5
_MAX_THREADS = 1_024
_log = EventLogger()
_COUNTED = {
    "read": "Messages read from the stream",
    "accepted": "Events accepted into the log",
    "rejected": "Quarantined messages",
    "duplicates": "Messages skipped because their event was accepted before",
    "late": "Events that arrived after newer event times",
    "states": "Updated states of entities",
    "batches": "Log files written",
    "rereads": "Log rows applied from the log after a start or a failure",
}
_GAUGES: dict[str, tuple[str, Callable[[SourceCounts], float | None]]] = {
    "lag": ("Messages waiting in the stream", lambda counts: counts.lag),
    "partitions": ("Owned partitions", lambda counts: counts.partitions),
    "watermark_seconds": (
        "Greatest accepted event time, since the epoch",
        lambda counts: None if counts.watermark_us is None else counts.watermark_us / 1e6,
    ),
    "waiting": ("1 if a worker cannot continue", lambda counts: float(counts.trouble is not None)),
}


@dataclass(eq=False)
class WorkerGroup(Collector):
    """Starts, watches and stops the workers of some sources, and gives them each newly applied plan.

    Args:
        streams: opens workers for the sources of the plan, and returns the needed views.
        names: of sources; empty: all, including sources that are added later.
        replay: Parquet files to read instead of the stream.
        speed: factor of real time for a replay; None: as fast as possible.
        process_record: records that this process runs; None: not recorded.
        open_deciders: opens the deciders of its sources for the decision streams of a plan, at the first plan for which
            it does not return None; None: no event is decided.

    Raises:
        RequestError: a source is unknown.
        StoreError: the store is unavailable.
    """

    streams: Streams
    names: Sequence[str] = ()
    replay: Path | None = None
    speed: float | None = None
    process_record: ProcessRecord | None = None
    open_deciders: Callable[[Sequence[DecisionStream]], DeciderPool | None] | None = None

    def __post_init__(self) -> None:
        """Open the stores and the workers, and build missing states."""
        streams = self.streams
        self._plan, self._plan_hash = streams.plan, streams.plan.hash
        sources = streams.sources(self.names)
        self._stores = [open_online_store(streams.redis_url)]
        self._workers: dict[str, Worker] = {}
        self._stop_events: dict[str, threading.Event] = {}
        self._tasks: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="stream")
        self._stop = threading.Event()
        self._idle_since = time.monotonic()
        self._last_read = 0
        self._decided_plan = 0
        self._deciders: DeciderPool | None = None
        try:
            for source in sources:
                self._add_worker(streams, source)
            self._build(streams)
            self._load_decisions()
        except SkewlessError:
            self.close()
            raise

    @property
    def source_counts(self) -> list[SourceCounts]:
        """The counts of each worker."""
        return [worker.counts for worker in list(self._workers.values())]  # a plan may be loaded at the same time

    @property
    def decision_counts(self) -> list[DecisionCounts]:
        """The counts of each decision stream."""
        deciders = [worker.decider for worker in list(self._workers.values())]
        counts = [each for decider in deciders if decider is not None for each in decider.counts]
        return [*counts, *(() if self._deciders is None else self._deciders.counts)]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of sources, decision streams and sinks."""
        yield from collect_streams(self.source_counts)
        if self._deciders is not None:
            yield from self._deciders.collect(self.decision_counts)

    def start(self) -> None:
        """Start the threads."""
        for name, worker in self._workers.items():
            self._start_worker(name, worker)
        self._tasks += [self._pool.submit(task) for task in (self._maintain, self._send_heartbeats)]

    def check(self) -> None:
        """Raise the error of a worker that has stopped."""
        for task in self._tasks:
            if task.done():
                task.result()

    def is_idle(self) -> bool:
        """Return whether all messages were read and applied, and none has arrived for half a second."""
        source_counts = self.source_counts
        read = sum(counts.read for counts in source_counts)
        # An unknown lag is not zero: before the first fetch from a partition, nobody knows what waits in it.
        is_busy = read != self._last_read or any(
            counts.lag != 0 or counts.trouble or not counts.partitions for counts in source_counts
        )
        is_busy = is_busy or any(counts.lag != 0 for counts in self.decision_counts)
        is_busy = is_busy or (self._deciders is not None and not self._deciders.is_idle())
        self._last_read = read
        if is_busy:
            self._idle_since = time.monotonic()
        return time.monotonic() - self._idle_since > _IDLE_S

    def stop(self) -> None:
        """Finish batches in progress and release the partitions."""
        self._stop_workers()
        self.check()

    def close(self) -> None:
        """Stop, and close all connections."""
        self._stop_workers()
        self._pool.shutdown()
        if self._deciders is not None:
            self._deciders.close()
        # After the threads, which use the stores.
        for store in self._stores:
            store.close()
        if self.process_record is not None:
            self.process_record.close()

    def _stop_workers(self) -> None:
        self._stop.set()
        for stop_event in self._stop_events.values():
            stop_event.set()
        wait(self._tasks)

    def _maintain(self) -> None:
        """Load plans and run housekeeping, until stopped."""
        housekeeping_at, files = time.monotonic() + _HOUSEKEEPING_S, _HOUSEKEEPING_FILES
        while not self._stop.wait(_POLL_S):
            self._log_errors("plan_not_loaded", self._load_plan)
            self._log_errors("decisions_not_loaded", self._load_decisions)
            if self._deciders is not None:
                self._log_errors("changes_not_decided", self._deciders.step)
            written = sum(counts.batches for counts in self.source_counts)
            if time.monotonic() > housekeeping_at or written >= files:
                housekeeping_at, files = time.monotonic() + _HOUSEKEEPING_S, written + _HOUSEKEEPING_FILES
                self._log_errors("housekeeping_failed", self._run_housekeeping)

    def _send_heartbeats(self) -> None:
        """Send heartbeats, until stopped; in their own thread, because a backfill may take minutes."""
        while not self._stop.is_set():
            self._send_heartbeat()
            self._stop.wait(_POLL_S)

    def _log_errors(self, event: str, work: Callable[[], None]) -> None:
        try:
            work()
        except SkewlessError as error:
            _log.warning(event, error=str(error))

    def _load_plan(self) -> None:
        """Give the workers the current plan and the needed views; failures are retried."""
        needed = None if self.streams.needed is None else self.streams.needed()
        if needed is None or needed.plan is self._plan:
            return
        streams = replace(self.streams, plan=needed.plan)
        # Workers first: they decode new columns and update existing states. Missing states are built afterwards.
        sources = [item for item in needed.plan.sources if not self.names or item.name in self.names]
        for source in sources:
            assignment = Assignment(source, tuple(streams.views(source.name)))
            if source.name not in self._workers:
                self._start_worker(source.name, self._add_worker(streams, source))
            elif self._workers[source.name].assignment != assignment:
                self._workers[source.name].reassign(assignment, self._stream(streams, source))
        for name in self._workers.keys() - {source.name for source in sources}:
            self._stop_events.pop(name).set()
            del self._workers[name]
        self._build(streams)
        self._decided_plan = 0  # new workers get their deciders
        # Only after the build: if it fails, the plan is loaded again.
        self._plan, self._plan_hash = needed.plan, needed.applied_hash

    def _load_decisions(self) -> None:
        """Give the workers the decision streams of the current plan; failures are retried."""
        if self.open_deciders is None:
            return
        number = read_plan_number(self.streams.state)
        applied = None if number == self._decided_plan else read_valid(self.streams.state)
        if applied is None:
            return
        self._deciders = self._deciders or self.open_deciders(applied.decisions)
        if self._deciders is not None:
            self._deciders.load(applied.plan, applied.decisions, self._stores[0])
            for worker in self._workers.values():
                source, store = worker.assignment.source, worker.writer.store
                worker.set_decider(self._deciders.open(applied.plan, source, applied.decisions, store))
        self._decided_plan = number

    def _add_worker(self, streams: Streams, source: EventSource) -> Worker:
        store = open_online_store(streams.redis_url)
        self._stores.append(store)
        worker = Worker(
            streams=streams,
            source=source,
            writer=streams.writer(source, store),
            open_stream=self._stream(streams, source),
        )
        self._workers[source.name] = worker
        return worker

    def _stream(self, streams: Streams, source: EventSource) -> OpenStream:
        return (
            streams.open_stream(source) if self.replay is None else streams.open_replay(source, self.replay, self.speed)
        )

    def _start_worker(self, name: str, worker: Worker) -> None:
        stop_event = self._stop_events[name] = threading.Event()
        self._tasks.append(self._pool.submit(worker.run, lambda: not stop_event.is_set()))

    def _build(self, streams: Streams) -> None:
        """Build missing states."""
        for worker in self._workers.values():
            Backfiller(streams=streams, store=self._stores[0]).build_missing(worker.assignment.views)

    def _run_housekeeping(self) -> None:
        streams = replace(self.streams, plan=self._plan)
        sources = [worker.assignment.source for worker in self._workers.values()]
        store = self._stores[0]
        # NTP may have set the clock, or the machine was suspended.
        streams.record_clock_skew([source.name for source in sources], store)
        Housekeeper(streams=streams, sources=sources, store=store).run()
        if streams.needed is not None:
            streams.retirement(streams.needed, store).run()

    def _send_heartbeat(self) -> None:
        if self.process_record is None:
            return
        now = time.monotonic()
        sources = [
            {
                "source": worker.counts.source,
                "views": [f"{view.name}-{view.hash}" for view in worker.assignment.views],
                "partitions": worker.counts.partitions,
                "lag": worker.counts.lag,
                "trouble": worker.counts.trouble
                or (f"stuck for {now - worker.stepped_at:.0f} s" if now - worker.stepped_at > SILENT_S else None),
            }
            for worker in list(self._workers.values())
        ]
        decisions = [asdict(counts) for counts in self.decision_counts]
        self.process_record.send_heartbeat(self._plan_hash, {"sources": sources, "decisions": decisions})


def collect_streams(sources: Sequence[SourceCounts]) -> Iterator[Metric]:
    """Yield the metrics of event sources, each with one sample per source."""
    return collect_counts("skewless_stream", "source", sources, _COUNTED, _GAUGES)
