"""Replays Parquet files as a stream of events: as fast as possible, or at the pace of their event times."""

from __future__ import annotations

import base64
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import blake2s
from os.path import commonpath
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.arrow_types import cast_times
from skewless.contract.clock import Clock, SystemClock
from skewless.contract.errors import DefinitionError, SourceError
from skewless.infra.ingest.streams.port import Messages, Partition, RebalanceListener
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.sources import glob_files
from skewless.infra.reads.offline.sql import quote

_PARTITION = "0"
_PAUSE_S = 0.01
_NO_TIME = np.iinfo(np.int64).min
_BATCH_ROWS = 8_192
_JSON = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
_UTC = pa.timestamp("us", "UTC")


def convert_to_utc(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with its times in UTC microseconds; times without a zone are UTC (SEMANTICS 1.1)."""
    columns = [cast_times(column, _UTC) if pa.types.is_timestamp(column.type) else column for column in batch]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def encode_json(batch: pa.RecordBatch) -> list[bytes]:
    """Return each row as a JSON object: times in ISO 8601 with Z, bytes as Base64, NaN and infinities as null.

    >>> encode_json(pa.RecordBatch.from_pydict({"x": [1.5, None]}))
    [b'{"x":1.5}', b'{"x":null}']
    """
    return [orjson.dumps(row, _encode_other, _JSON) for row in batch.to_pylist()]


def _encode_other(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _find_files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        return path.rglob("*.parquet")
    return iter([path]) if path.is_file() else glob_files(path)


def _digest(files: Sequence[Path]) -> str:
    """Return a text that changes with the files' sizes and their names below their common folder."""
    folder = commonpath([path.absolute().parent for path in files])
    parts = (f"{path.absolute().relative_to(folder)}\0{path.stat().st_size}\0" for path in files)
    return blake2s("".join(parts).encode(), digest_size=12).hexdigest()


def _count_rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise _read_error(path.name, error) from error


def _read_rows(files: Sequence[Path], time_column: str, start: int) -> Iterator[pa.RecordBatch]:
    """Yield all rows from a position on.

    Raises:
        SourceError: a file cannot be read, or lacks the time column.
    """
    names = [str(path) for path in files]
    sql = f"""
        SELECT * FROM read_parquet($files, union_by_name = true)
        ORDER BY {quote(time_column)} NULLS FIRST, file_index, file_row_number
        OFFSET $start
    """
    try:
        # DuckDB spills to disk, so files larger than memory can be sorted.
        with TemporaryDirectory() as spill, connect(Path(spill)) as connection:
            yield from connection.sql(sql, params={"files": names, "start": start}).to_arrow_reader(_BATCH_ROWS)
    except (pa.ArrowException, duckdb.Error, OSError) as error:
        raise _read_error(str(files[0].parent), error) from error


def _read_error(name: str, error: Exception) -> SourceError:
    return SourceError(
        f"stream of Parquet files {name!r}", f"cannot be read: {error}", fix="correct or remove the file"
    )


class ParquetStream:
    """Implements ``EventStream`` with one partition, whose positions are row numbers in the order of event times.

    Rows without a time come first; rows with equal times in the order of the files' names.

    Args:
        place: a folder with all subfolders, a glob, or a file.
        owner: notified of the partition at the first ``poll``.
        time_column: orders all rows.
        speed: factor of real time at which rows become due, 1.0 is real time; None: as fast as possible.
        clock: decides which rows are due.

    Raises:
        DefinitionError: the speed is not above 0.
        SourceError: no file matches, or one cannot be read.
    """

    def __init__(
        self,
        place: Path,
        owner: RebalanceListener,
        *,
        time_column: str,
        speed: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        if speed is not None and not speed > 0:
            raise DefinitionError("speed of a replay", "must be above 0", value=speed, fix="correct it")
        self._files = sorted(_find_files(place))
        if not self._files:
            raise SourceError(f"stream {str(place)!r}", "has no Parquet file", fix="name a folder, a glob or files")
        self._time_column = time_column
        self._n = sum(map(_count_rows, self._files))
        self._owner = owner
        self._partition = Partition(name=_PARTITION, epoch=_digest(self._files))
        self._throttle = None if speed is None else _Throttle(speed, clock or SystemClock())
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._is_owner = False
        self._batch: pa.RecordBatch | None = None
        self._next_position = 0

    @property
    def trouble(self) -> str | None:
        """Always None: files do not become available later."""
        return None

    @property
    def done(self) -> bool:
        """Whether the last row was returned."""
        return self._is_owner and self._next_position >= self._n

    def poll(self, limit: int, timeout_s: float) -> list[Messages]:
        """Return due rows; see ``EventStream``. At the end of the files it returns an empty list at once.

        Raises:
            SourceError: a file cannot be read, or lacks the time column.
        """
        if not self._is_owner:
            self._next_position = self._owner.on_assigned(self._partition) or 0
            self._batches = _read_rows(self._files, self._time_column, self._next_position)
            self._is_owner, self._is_ahead = True, False
        deadline = time.monotonic() + timeout_s
        while not self.done:
            payloads = self._take_due(limit)
            if payloads:
                positions = range(self._next_position, self._next_position + len(payloads))
                self._next_position = positions.stop
                return [Messages(partition=self._partition, positions=positions, payloads=payloads)]
            left = deadline - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, _PAUSE_S))
        return []

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Do nothing: files store no positions."""

    def lag(self) -> int | None:
        """Return the number of rows that were not returned yet."""
        return max(0, self._n - self._next_position) if self._is_owner else 0

    def find_drained(self) -> Mapping[Partition, float]:
        """Return drained partitions; see ``EventStream``. Rows that are not due have not arrived yet."""
        return {self._partition: 0.0} if self._is_owner and (self.done or self._is_ahead) else {}

    def partition_names(self) -> Collection[str] | None:
        """Return the name of the partition."""
        return [self._partition.name]

    def close(self) -> None:
        """Revoke the partition."""
        if self._is_owner:
            self._owner.on_revoked(self._partition)
            self._is_owner, self._batches, self._batch = False, iter(()), None

    def _take_due(self, limit: int) -> list[bytes]:
        batch = self._current_batch()
        n = n_read = min(limit, batch.num_rows)
        if self._throttle is not None:
            n = self._throttle.due(_times(batch.slice(0, n), self._time_column))
        self._is_ahead = n < n_read
        self._batch = batch.slice(n)
        return encode_json(batch.slice(0, n))

    def _current_batch(self) -> pa.RecordBatch:
        """Return rows that were read and not returned; never empty before the end."""
        while self._batch is None or not self._batch.num_rows:
            batch = next(self._batches, None)
            if batch is None:
                raise SourceError("stream of Parquet files", "became shorter during the replay", fix="start again")
            self._batch = convert_to_utc(batch)
        return self._batch


class _Throttle:
    """Decides which of the next rows are due; the first row with a time is due at once."""

    def __init__(self, speed: float, clock: Clock) -> None:
        self._speed = speed
        self._clock = clock
        self._first: tuple[int, int] | None = None

    def due(self, times_us: npt.NDArray[np.int64]) -> int:
        """Return the number of due rows, given their times in order; ``_NO_TIME``: always due."""
        now_us = self._clock.now_us()
        known_times = times_us[times_us != _NO_TIME]
        if self._first is None:
            if not known_times.size:
                return len(times_us)
            self._first = (int(known_times[0]), now_us)
        first_us, start_us = self._first
        until_us = first_us + int((now_us - start_us) * self._speed)
        # _NO_TIME is the lowest value, so rows without a time are always due.
        return int(np.searchsorted(times_us, until_us, side="right"))


def _times(batch: pa.RecordBatch, column: str) -> npt.NDArray[np.int64]:
    column_values = batch.column(column)
    if not pa.types.is_timestamp(column_values.type):
        raise SourceError(
            f"column {column!r}",
            "is not a timestamp column",
            value=str(column_values.type),
            fix="replay without a speed",
        )
    times = column_values.cast(pa.int64()).fill_null(_NO_TIME).to_numpy(zero_copy_only=False)
    return np.asarray(times, dtype=np.int64)
