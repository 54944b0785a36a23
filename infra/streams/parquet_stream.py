"""Parquet files replayed as a stream of events: as fast as they can be read, or in the rhythm of their times."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.clock import Clock, SystemClock
from skewless.contract.errors import DefinitionError, SourceError
from skewless.infra.streams.parquet_rows import ParquetRows, as_json, in_utc
from skewless.infra.streams.port import Messages, Owner, Partition

_PARTITION = "0"
_PAUSE_S = 0.01
_NO_TIME = np.iinfo(np.int64).min


class ParquetStream:
    """See ``EventStream``: one partition, whose positions are row numbers over all files.

    Args:
        place: a folder with all below it, a glob, or files; read in the order of their names.
        owner: told of the partition at the first ``poll``.
        time_column: by which all rows are ordered, with DuckDB; None: as they stand in the files.
        speed: how much faster than their times the rows come, 1.0 is real time; None: as fast as they can be read.
        clock: by which they come.

    Raises:
        DefinitionError: a speed without a time column, or not above 0.
        SourceError: there is no file, or one cannot be read.
    """

    def __init__(
        self,
        place: Path | str | Sequence[Path],
        owner: Owner,
        *,
        time_column: str | None = None,
        speed: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        if speed is not None and (time_column is None or not speed > 0):
            raise DefinitionError(
                "speed of a replay", "needs a time column and to be above 0", value=speed, fix="correct it"
            )
        self._rows = ParquetRows.found(place, time_column)
        self._n = len(self._rows)
        self._owner = owner
        self._partition = Partition(name=_PARTITION, epoch=self._rows.digest)
        self._pace = None if speed is None else _Pace(speed, clock or SystemClock())
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._owns = False
        self._batch: pa.RecordBatch | None = None
        self._following = 0

    @property
    def trouble(self) -> str | None:
        """Nothing: files are there or are not."""
        return None

    @property
    def done(self) -> bool:
        """Whether the last row was returned."""
        return self._owns and self._following >= self._n

    def poll(self, limit: int, timeout_s: float) -> list[Messages]:
        """See ``EventStream``; at the end of the files it returns nothing at once.

        Raises:
            SourceError: a file cannot be read, or misses the time column.
        """
        if not self._owns:
            self._following = self._owner.assigned(self._partition) or 0
            self._batches = self._rows.batches(self._following)
            self._owns, self._is_ahead = True, False
        deadline = time.monotonic() + timeout_s
        while not self.done:
            payloads = self._released(limit)
            if payloads:
                positions = range(self._following, self._following + len(payloads))
                self._following = positions.stop
                return [Messages(partition=self._partition, positions=positions, payloads=payloads)]
            left = deadline - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, _PAUSE_S))
        return []

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Do nothing: files have no place for it."""

    def lag(self) -> int | None:
        """See ``EventStream``."""
        return max(0, self._n - self._following) if self._owns else 0

    def drained(self) -> Mapping[Partition, float]:
        """See ``EventStream``: what is not due yet has not arrived."""
        return {self._partition: 0.0} if self._owns and (self.done or self._is_ahead) else {}

    def names(self) -> Collection[str] | None:
        """See ``EventStream``."""
        return [self._partition.name]

    def close(self) -> None:
        """See ``EventStream``."""
        if self._owns:
            self._owner.revoked(self._partition)
            self._owns, self._batches, self._batch = False, iter(()), None

    def _released(self, limit: int) -> list[bytes]:
        batch = self._held()
        n = there = min(limit, batch.num_rows)
        if self._pace is not None:
            n = self._pace.due(_times(batch.slice(0, n), str(self._rows.time_column)))
        self._is_ahead = n < there
        self._batch = batch.slice(n)
        return as_json(batch.slice(0, n))

    def _held(self) -> pa.RecordBatch:
        """Return the rows that were read and not returned; never none of them before the end."""
        while self._batch is None or not self._batch.num_rows:
            found = next(self._batches, None)
            if found is None:
                raise SourceError("stream of Parquet files", "became shorter while it was read", fix="start again")
            self._batch = in_utc(found)
        return self._batch


class _Pace:
    """Says which of the next rows are due; the first row that has a time is due at once."""

    def __init__(self, speed: float, clock: Clock) -> None:
        self._speed = speed
        self._clock = clock
        self._first: tuple[int, int] | None = None

    def due(self, times_us: npt.NDArray[np.int64]) -> int:
        """Return how many of some rows are due, by their times in order; ``_NO_TIME``: due whenever."""
        now_us = self._clock.now_us()
        timed = times_us[times_us != _NO_TIME]
        if self._first is None:
            if not timed.size:
                return len(times_us)
            self._first = (int(timed[0]), now_us)
        first_us, start_us = self._first
        until_us = first_us + int((now_us - start_us) * self._speed)
        return int(np.searchsorted(times_us, until_us, side="right"))


def _times(batch: pa.RecordBatch, column: str) -> npt.NDArray[np.int64]:
    found = batch.column(column)
    if not pa.types.is_timestamp(found.type):
        raise SourceError(
            f"column {column!r}", "holds no timestamps", value=str(found.type), fix="replay without a speed"
        )
    whole = found.cast(pa.int64()).fill_null(_NO_TIME).to_numpy(zero_copy_only=False)
    return np.asarray(whole, dtype=np.int64)
