"""Writes predictions into the spool asynchronously: a bounded queue, a thread, one Parquet file per flush."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.infra.log.spool import Spool
from skewless.infra.platform.host.priority import lower_priority
from skewless.infra.platform.storage.durable import error_text, make_folder, write_durable
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.records.predictions.batches import ConstantColumns, to_batch
from skewless.infra.records.predictions.checksum import seal_batch
from skewless.infra.records.predictions.record import PredictionBatch
from skewless.infra.records.predictions.segments import SCHEMA

_FLUSH_ROWS = 20_000
_log = EventLogger()
# Converting this many rows and records to Arrow holds the GIL for about a millisecond; then other threads may run.
_BATCH_ROWS, _BATCH_RECORDS = 1_024, 512
_PAUSE_SECONDS = 0.0005
_PROBE_BYTES = 65_536
_Queue = defaultdict[tuple[int, str], deque[PredictionBatch]]


class PredictionWriter:
    """Accepts records without blocking; a thread makes them durable.

    While the disk refuses writes, ``problem`` is the reason. Each flush interval tests the disk, so that recovery is
    noticed even without predictions.

    Args:
        spool: of the log, on the local disk; no other object writes into it.
        capacity: largest number of queued predictions; further records are dropped and counted.
        flush_seconds: longest time that a record waits.
        on_drop: called with the number of dropped predictions and the reason.
        on_stored: called after each file, before those who wait for it; a StoreError reaches them.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        capacity: int,
        flush_seconds: float,
        on_drop: Callable[[int, str], None],
        on_stored: Callable[[], object] = lambda: None,
    ) -> None:
        self._spool = spool
        self._on_stored = on_stored
        self._capacity = capacity
        self._flush_seconds = flush_seconds
        self._on_drop = on_drop
        self._queue: _Queue = defaultdict(deque)
        self._futures: list[Future[None]] = []
        self._queued_rows = 0
        self._condition = threading.Condition()
        self._closed = False
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def offer(self, record: PredictionBatch) -> bool:
        """Queue a record, best effort; return whether there was room."""
        return self._enqueue(record, None)

    def require(self, record: PredictionBatch) -> Future[None]:
        """Queue a record that must be durable before its reply; the future is done when it is durable.

        Raises:
            StoreError: the queue is full.
        """
        durable: Future[None] = Future()
        if not self._enqueue(record, durable):
            raise StoreError("prediction log", "is full, and this model requires it", fix="retry after a few seconds")
        return durable

    @property
    def queued_rows(self) -> int:
        """Return the number of predictions that wait."""
        return self._queued_rows

    def close(self) -> None:
        """Write the queued records, then stop."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _enqueue(self, record: PredictionBatch, durable: Future[None] | None) -> bool:
        n = len(record.ids)
        with self._condition:
            room = not self._closed and self._queued_rows + n <= self._capacity
            if room:
                self._queue[id(record.origin), record.source].append(record)
                self._queued_rows += n
                if durable is not None:
                    self._futures.append(durable)
                if self._futures or self._queued_rows >= _FLUSH_ROWS:
                    self._condition.notify()
        if not room:
            self._on_drop(n, "full")
        return room

    def _run(self) -> None:
        lower_priority()
        while True:
            with self._condition:
                if not (self._closed or self._futures):
                    self._condition.wait(self._flush_seconds)
                # The queue is replaced in one step, so that callers do not wait for the write.
                queue, futures, is_closed = self._queue, self._futures, self._closed
                self._queue, self._futures = defaultdict(deque), []
            if queue:
                self._write(queue, futures)
            elif is_closed:
                return
            elif self.problem is not None:
                self._probe()

    def _write(self, queue: _Queue, futures: list[Future[None]]) -> None:
        rows = sum(len(record.ids) for records in queue.values() for record in records)
        error: StoreError | None = None
        try:
            table = pa.Table.from_batches(list(_drain_batches(queue, self._spool.next_name, rows)), schema=SCHEMA)
            self._spool.store(table["t"][0].as_py(), table)
            self._set_problem(None)
            error = self._report_stored()
        except (OSError, StoreError, pa.ArrowException) as refusal:
            self._set_problem(str(refusal.value) if isinstance(refusal, StoreError) else error_text(refusal))
            error = StoreError("prediction log", "cannot be written", value=self.problem, fix="free disk space")
            self._on_drop(rows, "disk")
        except Exception:  # noqa: BLE001 - a bug must not end the thread: later records would wait for ever
            _log.exception("prediction_log_failed", rows=rows)
            error = StoreError("prediction log", "cannot store these predictions", fix="see the server's log")
            self._on_drop(rows, "defect")
        with self._condition:
            self._queued_rows -= rows
        for future in futures:
            future.set_exception(error) if error else future.set_result(None)

    def _report_stored(self) -> StoreError | None:
        try:
            self._on_stored()
        except StoreError as error:
            return error
        return None

    def _set_problem(self, problem: str | None) -> None:
        """Record whether the disk refuses writes; log each change once."""
        if problem is not None and problem != self.problem:
            _log.error("prediction_log_refused", folder=str(self._spool.folder), reason=problem)
        elif problem is None and self.problem is not None:
            _log.info("prediction_log_recovered", folder=str(self._spool.folder))
        self.problem = problem

    def _probe(self) -> None:
        """Test whether the disk accepts a file again."""
        path = self._spool.folder / f".{self._spool.writer}.probe"
        try:
            make_folder(self._spool.folder)
            write_durable(path, bytes(_PROBE_BYTES))
            path.unlink()
        except (OSError, StoreError):
            return
        self._set_problem(None)


def _drain_batches(queue: _Queue, file: str, rows: int) -> Iterator[pa.RecordBatch]:
    """Drain the queue into the rows of a file, in batches: freeing all records at once would hold the GIL, too."""
    n = 0
    for records in queue.values():
        constants = ConstantColumns(records[0].origin, records[0].source)
        while records:
            if n:
                time.sleep(_PAUSE_SECONDS)
            batch = to_batch(_take_batch(records), constants)
            yield seal_batch(batch, file, first=n, rows=rows)
            n += len(batch)


def _take_batch(records: deque[PredictionBatch]) -> list[PredictionBatch]:
    batch: list[PredictionBatch] = []
    rows = 0
    while records and rows < _BATCH_ROWS and len(batch) < _BATCH_RECORDS:
        batch.append(records.popleft())
        rows += len(batch[-1].ids)
    return batch
