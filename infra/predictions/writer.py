"""Writes the prediction log behind the replies: a bounded ring, a thread, one Parquet file per flush."""

from __future__ import annotations

import os
import threading
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from infra.predictions.record import Record, to_table
from skewless.errors import StoreError

_MOST_ROWS = 20_000


class PredictionWriter:
    """Takes records without blocking; a thread makes them durable.

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
        self._ring: deque[tuple[Record, Future[None] | None]] = deque()
        self._held = 0
        self._wake = threading.Condition()
        self._closed = False
        self._urgent = False
        self._name = uuid.uuid4().hex[:12]
        self._files = 0
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)
        self._thread.start()

    def offer(self, record: Record) -> bool:
        """Take a record, best effort; return whether there was room."""
        return self._take(record, None)

    def require(self, record: Record) -> Future[None]:
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

    def _take(self, record: Record, done: Future[None] | None) -> bool:
        n = len(record.ids)
        with self._wake:
            room = not self._closed and self._held + n <= self._capacity
            if room:
                self._ring.append((record, done))
                self._held += n
                self._urgent |= done is not None
                if self._urgent or self._held >= _MOST_ROWS:
                    self._wake.notify()
        if not room:
            self._on_drop(n, "full")
        return room

    def _work(self) -> None:
        while True:
            with self._wake:
                if not (self._closed or self._urgent):
                    self._wake.wait(self._flush_seconds)
                batch, closed = list(self._ring), self._closed
                self._ring.clear()
                self._urgent = False
            if batch:
                self._write(batch)
            elif closed:
                return

    def _write(self, batch: list[tuple[Record, Future[None] | None]]) -> None:
        records = [record for record, _ in batch]
        error: StoreError | None = None
        try:
            self._store(to_table(records))
        except (OSError, pa.ArrowException) as cause:
            error = StoreError(f"prediction log {self._folder}", f"cannot be written: {cause}", fix="free disk space")
        rows = sum(len(record.ids) for record in records)
        with self._wake:
            self._held -= rows
        if error is not None:
            self._on_drop(rows, "disk")
        for _, done in batch:
            if done is not None:
                done.set_exception(error) if error else done.set_result(None)

    def _store(self, table: pa.Table) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        first = table["t"][0].as_py()
        path = self._folder / f"{first:020d}-{self._name}-{self._files:06d}.parquet"
        temporary = path.with_suffix(".tmp")
        try:
            pq.write_table(table, temporary, compression="zstd")
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self._files += 1
