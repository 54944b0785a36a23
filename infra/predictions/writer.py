"""Writes the prediction log behind the replies: a bounded ring, a thread, one Parquet file per flush."""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pyarrow as pa
import structlog

from skewless.contract.errors import StoreError
from skewless.infra.host.priority import give_way
from skewless.infra.log.inventory import Inventory, add_to_inventory
from skewless.infra.predictions.batches import ConstantColumns, to_batch
from skewless.infra.predictions.files import write_rows
from skewless.infra.predictions.record import PredictionBatch
from skewless.infra.predictions.schema import SCHEMA
from skewless.infra.storage.durable import error_text, make_folder, sync_file, sync_folder, write_durable

_MOST_ROWS = 20_000
_log = structlog.get_logger()
# Making Arrow of this many rows and records holds the interpreter for about a millisecond; then others have a turn.
_PIECE_ROWS, _PIECE_RECORDS = 1_024, 512
_PAUSE_SECONDS = 0.0005
_PROBE_BYTES = 65_536
_Ring = defaultdict[tuple[int, str], deque[PredictionBatch]]


class PredictionWriter:
    """Takes records without blocking; a thread makes them durable.

    While the disk refuses, ``trouble`` says why; whether it has room again is tried as often as the log is flushed, so
    that it is seen without a prediction.

    Args:
        folder: where the files go.
        capacity: most predictions held; beyond it records are dropped and counted.
        flush_seconds: longest time a record waits.
        on_drop: told how many predictions were dropped, and why.
    """

    def __init__(
        self, folder: Path, *, capacity: int, flush_seconds: float, on_drop: Callable[[int, str], None]
    ) -> None:
        self._folder = folder
        self._capacity = capacity
        self._flush_seconds = flush_seconds
        self._on_drop = on_drop
        self._ring: _Ring = defaultdict(deque)
        self._waiting: list[Future[None]] = []
        self._held = 0
        self._wake = threading.Condition()
        self._closed = False
        self._inventory = Inventory(folder)
        self._name = uuid.uuid4().hex[:12]
        self._files = 0
        self.trouble: str | None = None
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)
        self._thread.start()

    def offer(self, record: PredictionBatch) -> bool:
        """Take a record, best effort; return whether there was room."""
        return self._take(record, None)

    def require(self, record: PredictionBatch) -> Future[None]:
        """Take a record that must be durable before its reply; the future is done when it is.

        Raises:
            StoreError: the ring is full.
        """
        done: Future[None] = Future()
        if not self._take(record, done):
            raise StoreError("prediction log", "is full, and this model requires it", fix="try again shortly")
        return done

    def close(self) -> None:
        """Write what is held, then stop."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _take(self, record: PredictionBatch, done: Future[None] | None) -> bool:
        n = len(record.ids)
        with self._wake:
            room = not self._closed and self._held + n <= self._capacity
            if room:
                self._ring[id(record.origin), record.source].append(record)
                self._held += n
                if done is not None:
                    self._waiting.append(done)
                if self._waiting or self._held >= _MOST_ROWS:
                    self._wake.notify()
        if not room:
            self._on_drop(n, "full")
        return room

    def _work(self) -> None:
        give_way()
        while True:
            with self._wake:
                if not (self._closed or self._waiting):
                    self._wake.wait(self._flush_seconds)
                ring, waiting, closed = self._ring, self._waiting, self._closed
                self._ring, self._waiting = defaultdict(deque), []
            if ring:
                self._write(ring, waiting)
            elif closed:
                return
            elif self.trouble is not None:
                self._probe()

    def _write(self, ring: _Ring, waiting: list[Future[None]]) -> None:
        rows = sum(len(record.ids) for records in ring.values() for record in records)
        error: StoreError | None = None
        try:
            self._store(pa.Table.from_batches(list(_batches(ring)), schema=SCHEMA))
            self._note(None)
        except (OSError, pa.ArrowException) as refusal:
            self._note(error_text(refusal))
            error = StoreError("prediction log", "cannot be written", value=self.trouble, fix="free disk space")
            self._on_drop(rows, "disk")
        except Exception:  # noqa: BLE001 - a defect must not end the thread: later records would wait for ever
            _log.exception("prediction_log_failed", rows=rows)
            error = StoreError("prediction log", "cannot hold these predictions", fix="see the server's log")
            self._on_drop(rows, "defect")
        with self._wake:
            self._held -= rows
        for done in waiting:
            done.set_exception(error) if error else done.set_result(None)

    def _note(self, trouble: str | None) -> None:
        """Remember whether the disk refuses; a change is logged once."""
        if trouble is not None and trouble != self.trouble:
            _log.error("prediction_log_refused", folder=str(self._folder), reason=trouble)
        elif trouble is None and self.trouble is not None:
            _log.info("prediction_log_is_back", folder=str(self._folder))
        self.trouble = trouble

    def _probe(self) -> None:
        """Try whether the disk takes a file again."""
        path = self._folder / f".{self._name}.probe"
        try:
            make_folder(self._folder)
            write_durable(path, bytes(_PROBE_BYTES))
            path.unlink()
        except (OSError, StoreError):
            return
        self._note(None)

    def _store(self, table: pa.Table) -> None:
        make_folder(self._folder)
        first = table["t"][0].as_py()
        path = self._folder / f"{first:020d}-{self._name}-{self._files:06d}.parquet"
        temporary = path.with_suffix(".tmp")
        try:
            write_rows(table, temporary)
            sync_file(temporary)
            temporary.replace(path)
            sync_folder(self._folder)
            add_to_inventory(self._inventory, path, table.num_rows)
        finally:
            temporary.unlink(missing_ok=True)
        self._files += 1


def _batches(ring: _Ring) -> Iterator[pa.RecordBatch]:
    """Empty the ring, piece by piece: to free all records at once would hold the interpreter as well."""
    begun = False
    for records in ring.values():
        constants = ConstantColumns(records[0].origin, records[0].source)
        while records:
            if begun:
                time.sleep(_PAUSE_SECONDS)
            begun = True
            yield to_batch(_piece(records), constants)


def _piece(records: deque[PredictionBatch]) -> list[PredictionBatch]:
    piece: list[PredictionBatch] = []
    rows = 0
    while records and rows < _PIECE_ROWS and len(piece) < _PIECE_RECORDS:
        piece.append(records.popleft())
        rows += len(piece[-1].ids)
    return piece
