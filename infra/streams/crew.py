"""The workers of one process: a thread for each event source, and one that keeps logs and states in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import structlog

from infra.online.redis_store import RedisWriter
from infra.streams.streams import Streams
from infra.streams.tally import Tally
from infra.streams.worker import Worker
from skewless.errors import SkewlessError

_TIDY_S = 60.0
_IDLE_S = 0.5
_log = structlog.get_logger()


@dataclass(kw_only=True)
class Crew:
    """Starts, watches and stops the workers of some sources.

    Args:
        workers: one for each source.
        stores: their connections, closed in the end.
        tidy: keeps logs and states in order; called about once a minute.
    """

    streams: Streams
    workers: list[Worker]
    stores: list[RedisWriter]
    tidy: Callable[[], None]
    _stop: threading.Event = field(default_factory=threading.Event)
    _tasks: list[Future[None]] = field(default_factory=list)
    _quiet_since: float = field(default_factory=time.monotonic)
    _read: int = 0

    @classmethod
    def of(
        cls, streams: Streams, names: Sequence[str], *, replay: Path | None = None, speed: float | None = None
    ) -> Self:
        """Return the workers of some sources, none: all; views without states are built first.

        Args:
            replay: Parquet files that are read instead of the stream.

        Raises:
            RequestError: a source is unknown.
            StoreError: the store is away.
        """
        sources = streams.sources(names)
        stores = [RedisWriter(streams.redis_url) for _ in (*sources, None)]
        tiles = [store.tiles() for store in stores]
        for source, store in zip(sources, tiles, strict=False):
            streams.bootstrapper(store).ensure(streams.views(source.name))
        workers = [
            streams.worker(source, store, streams.replayed(source, replay, speed) if replay else None)
            for source, store in zip(sources, tiles, strict=False)
        ]
        return cls(streams=streams, workers=workers, stores=stores, tidy=streams.housekeeper(sources, tiles[-1]).tidy)

    @property
    def tallies(self) -> list[Tally]:
        """Return what each worker has done."""
        return [worker.tally for worker in self.workers]

    def start(self) -> None:
        """Begin."""
        pool = ThreadPoolExecutor(len(self.workers) + 1, thread_name_prefix="stream")
        self._tasks = [pool.submit(worker.run, lambda: not self._stop.is_set()) for worker in self.workers]
        self._tasks.append(pool.submit(self._tidy))
        pool.shutdown(wait=False)

    def check(self) -> None:
        """Raise what a worker could not go on from, whatever it is."""
        for task in self._tasks:
            if task.done():
                task.result()

    def idle(self) -> bool:
        """Say whether all that the streams held has been taken and applied, and nothing came for a moment."""
        read = sum(tally.read for tally in self.tallies)
        busy = read != self._read or any(tally.lag or tally.trouble or not tally.partitions for tally in self.tallies)
        self._read = read
        if busy:
            self._quiet_since = time.monotonic()
        return time.monotonic() - self._quiet_since > _IDLE_S

    def stop(self) -> None:
        """Finish what is under way and give the partitions back."""
        self._stop.set()
        wait(self._tasks)
        self.check()

    def close(self) -> None:
        """Stop, and give the connections back."""
        self._stop.set()
        wait(self._tasks)
        for store in self.stores:
            store.close()

    def _tidy(self) -> None:
        while not self._stop.wait(_TIDY_S):
            try:
                self.tidy()
            except SkewlessError as error:
                _log.warning("housekeeping_failed", error=str(error))
