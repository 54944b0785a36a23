"""The workers of one process: a thread for each event source, one that takes up plans and tidies, one that beats."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import structlog

from skewless.contract.errors import SkewlessError
from skewless.contract.windows.view import EventSource
from skewless.infra.host.processes import SILENT_S, ProcessRecord
from skewless.infra.online.store import open_online_store
from skewless.infra.streams.source_counts import SourceCounts
from skewless.infra.streams.streams import Streams
from skewless.infra.streams.worker import Assignment, OpenStream, Worker

_LOOK_S = 1.0
_TIDY_S = 60.0
_IDLE_S = 0.5
_MOST_THREADS = 1_024
_log = structlog.get_logger()


class WorkerGroup:
    """Starts, watches and stops the workers of some sources, and lets them take up each plan that is applied.

    Args:
        streams: opens what works on the sources of the plan, and says what is needed from then on.
        names: of sources; none: all, also those that come later.
        replay: Parquet files that are read instead of the stream.
        presence: where the process says that it runs; None: nowhere.

    Raises:
        RequestError: a source is unknown.
        StoreError: the store is away.
    """

    def __init__(
        self,
        streams: Streams,
        *,
        names: Sequence[str] = (),
        replay: Path | None = None,
        speed: float | None = None,
        presence: ProcessRecord | None = None,
    ) -> None:
        self._streams = streams
        self._names = names
        self._replay, self._speed = replay, speed
        self._presence = presence
        self._plan, self._in_force = streams.plan, streams.plan.hash
        sources = streams.sources(names)
        self._stores = [open_online_store(streams.redis_url)]
        self._workers: dict[str, Worker] = {}
        self._ending: dict[str, threading.Event] = {}
        self._tasks: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="stream")
        self._stop = threading.Event()
        self._quiet_since = time.monotonic()
        self._read = 0
        try:
            for source in sources:
                self._add(streams, source)
            self._build(streams)
        except SkewlessError:
            self.close()
            raise

    @property
    def tallies(self) -> list[SourceCounts]:
        """Return what each worker has done."""
        return [worker.tally for worker in list(self._workers.values())]  # a plan may be taken up at the same time

    def start(self) -> None:
        """Begin."""
        for name, worker in self._workers.items():
            self._begin(name, worker)
        self._tasks += [self._pool.submit(task) for task in (self._keep, self._say)]

    def check(self) -> None:
        """Raise what a worker could not go on from, whatever it is."""
        for task in self._tasks:
            if task.done():
                task.result()

    def idle(self) -> bool:
        """Say whether all that the streams held has been taken and applied, and nothing came for a moment."""
        tallies = self.tallies
        read = sum(tally.read for tally in tallies)
        busy = read != self._read or any(tally.lag or tally.trouble or not tally.partitions for tally in tallies)
        self._read = read
        if busy:
            self._quiet_since = time.monotonic()
        return time.monotonic() - self._quiet_since > _IDLE_S

    def stop(self) -> None:
        """Finish what is under way and give the partitions back."""
        self._end()
        self.check()

    def close(self) -> None:
        """Stop, and give the connections back."""
        self._end()
        self._pool.shutdown()
        for store in self._stores:
            store.close()
        if self._presence is not None:
            self._presence.close()

    def _end(self) -> None:
        self._stop.set()
        for ending in self._ending.values():
            ending.set()
        wait(self._tasks)

    def _keep(self) -> None:
        """Take up plans and tidy, until told to stop."""
        tidy_at = time.monotonic() + _TIDY_S
        while not self._stop.wait(_LOOK_S):
            self._try("plan_not_taken_up", self._take_up)
            if time.monotonic() > tidy_at:
                tidy_at = time.monotonic() + _TIDY_S
                self._try("housekeeping_failed", self._tidy)

    def _say(self) -> None:
        """Say that the process lives, until told to stop: building states may take minutes."""
        while not self._stop.is_set():
            self._beat()
            self._stop.wait(_LOOK_S)

    def _try(self, event: str, work: Callable[[], None]) -> None:
        try:
            work()
        except SkewlessError as error:
            _log.warning(event, error=str(error))

    def _take_up(self) -> None:
        """Let the workers do what the plan in force and the models need now; what cannot be done is tried again."""
        needed = None if self._streams.needed is None else self._streams.needed()
        if needed is None or needed.plan is self._plan:
            return
        streams = replace(self._streams, plan=needed.plan)
        # First of all new columns are understood and what is there is fed; then what is missing is built.
        wanted = [item for item in needed.plan.sources if not self._names or item.name in self._names]
        for source in wanted:
            assignment = Assignment(source, tuple(streams.views(source.name)))
            if source.name not in self._workers:
                self._begin(source.name, self._add(streams, source))
            elif self._workers[source.name].assignment != assignment:
                self._workers[source.name].take_up(assignment, self._stream(streams, source))
        for name in self._workers.keys() - {source.name for source in wanted}:
            self._ending.pop(name).set()
            del self._workers[name]
        self._build(streams)
        self._plan, self._in_force = needed.plan, needed.applied_hash

    def _add(self, streams: Streams, source: EventSource) -> Worker:
        store = open_online_store(streams.redis_url)
        self._stores.append(store)
        worker = streams.worker(source, store, self._stream(streams, source))
        self._workers[source.name] = worker
        return worker

    def _stream(self, streams: Streams, source: EventSource) -> OpenStream:
        return streams.stream(source) if self._replay is None else streams.replayed(source, self._replay, self._speed)

    def _begin(self, name: str, worker: Worker) -> None:
        ending = self._ending[name] = threading.Event()
        self._tasks.append(self._pool.submit(worker.run, lambda: not ending.is_set()))

    def _build(self, streams: Streams) -> None:
        """Build the states that are missing."""
        for worker in self._workers.values():
            streams.bootstrapper(self._stores[0]).ensure(worker.assignment.views)

    def _tidy(self) -> None:
        streams = replace(self._streams, plan=self._plan)
        sources = [worker.assignment.source for worker in self._workers.values()]
        store = self._stores[0]
        streams.housekeeper(sources, store).tidy()
        if streams.needed is not None:
            streams.retirement(streams.needed(), store).run()

    def _beat(self) -> None:
        if self._presence is None:
            return
        now = time.monotonic()
        sources = [
            {
                "source": worker.tally.source,
                "views": [f"{view.name}-{view.hash}" for view in worker.assignment.views],
                "partitions": worker.tally.partitions,
                "lag": worker.tally.lag,
                "trouble": worker.tally.trouble
                or (f"stuck for {now - worker.stepped_at:.0f} s" if now - worker.stepped_at > SILENT_S else None),
            }
            for worker in list(self._workers.values())
        ]
        self._presence.beat(self._in_force, {"sources": sources})
