"""The newest row of each entity among log positions, packed and put into the online store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.keys import KeyCodec
from skewless.contract.plan import View
from skewless.contract.rows import NO_TIME, RowCodec
from skewless.contract.status import BoolArray
from skewless.infra.log.accepted import CREATED, EVENT, REJECT, RUN, SEQ, TOMBSTONE, AcceptedLog
from skewless.infra.log.manifest import FileRange
from skewless.infra.offline import arrays
from skewless.infra.offline.sql import names
from skewless.infra.online.port import OnlineWriter

if TYPE_CHECKING:
    import duckdb

# One byte and one narrow row in DuckDB for each position: what bounds the memory, whatever the log holds.
_RANGE_ROWS = 8_000_000
_BATCH_ROWS = 50_000

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LatestBatch:
    """Rows as the online store takes them; ``passed``: how many log positions they stand for."""

    keys: pa.LargeBinaryArray
    rows: pa.LargeBinaryArray
    passed: int


@dataclass(frozen=True, kw_only=True)
class LatestRows:
    """The newest rows of one view.

    Args:
        project: part of the rows' names.
    """

    project: str
    view: View
    log: AcceptedLog
    connection: duckdb.DuckDBPyConnection

    def put(self, online: OnlineWriter, first: int, on_rows: Callable[[int], None]) -> tuple[int, int]:
        """Put the newest row of each entity from a position to the end; return how many, and how many were written.

        Args:
            online: newer wins there, so that a key which comes more than once, or in another order, does no harm.
            on_rows: told how many positions were passed, again and again.
        """
        last, put, written = self.log.next_seq() - 1, 0, 0
        for start in range(first, last + 1, _RANGE_ROWS):
            # The next batch is packed while the store takes this one.
            for packed in _ahead(self._packed(start, min(start + _RANGE_ROWS, last + 1))):
                put += len(packed.keys)
                written += online.put(packed.keys, packed.rows)
                on_rows(packed.passed)
        return put, written

    def _packed(self, start: int, stop: int) -> Iterator[LatestBatch]:
        wanted = self._wanted(start, stop)
        keys, codec = KeyCodec(self.project, self.view), RowCodec(self.view)
        for rows in _rows(self.log.segments(), self.view, start, stop):
            places = rows[SEQ].to_numpy() - start
            yield _pack(self.view, keys, codec, rows.filter(pa.array(wanted[places])), len(places))

    def _wanted(self, start: int, stop: int) -> BoolArray:
        """Return which positions hold the newest row of their key, shape ``(stop - start,)``."""
        wanted = np.zeros(stop - start, dtype=np.bool_)
        parameters = [self.log.files(start), start, stop]
        for batch in self.connection.sql(newest_sql(self.view), params=parameters).to_arrow_reader(1_000_000):
            wanted[batch[SEQ].to_numpy() - start] = True
        return wanted


def newest_sql(view: View) -> str:
    """Return SQL for ``__seq`` of the newest row of each key among log positions; bind files, first, end exclusive."""
    keys = names(column.name for column in view.keys)
    rows = f"SELECT {keys}, {EVENT}, {CREATED}, {SEQ} FROM read_parquet(?)"
    return (
        f"SELECT {SEQ} FROM ({rows} WHERE {REJECT} IS NULL AND {SEQ} >= ? AND {SEQ} < ?) QUALIFY row_number() OVER"
        f" (PARTITION BY {keys} ORDER BY {EVENT} DESC, coalesce({CREATED}, {NO_TIME}) DESC, {SEQ} DESC) = 1"
    )


def _rows(segments: Sequence[FileRange], view: View, start: int, stop: int) -> Iterator[pa.Table]:
    """Yield the log rows of a range, whatever the reason they may be rejected for, in batches."""
    columns = [SEQ, EVENT, CREATED, RUN, TOMBSTONE, *(column.name for column in (*view.keys, *view.features))]
    for segment in segments:
        if segment.last < start or segment.first >= stop:
            continue
        with pq.ParquetFile(segment.path, pre_buffer=False) as file:  # buffers would stay to the end of the file
            groups = _groups(file, segment.first, start, stop)
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns):
                rows = pa.Table.from_batches([batch])
                seq = rows[SEQ].to_numpy()
                yield rows.filter(pa.array((seq >= start) & (seq < stop)))


def _groups(file: pq.ParquetFile, first: int, start: int, stop: int) -> list[int]:
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    ends = first + np.cumsum(sizes)
    return [i for i, size in enumerate(sizes) if ends[i] > start and ends[i] - size < stop]


def _pack(view: View, keys: KeyCodec, codec: RowCodec, rows: pa.Table, passed: int) -> LatestBatch:
    rows = rows.combine_chunks()
    nulls = {column.name: arrays.nulls(rows[column.name]) for column in view.features}
    values = {
        column.name: rows[column.name].combine_chunks()
        if column.dtype.is_text
        else arrays.values(rows[column.name], column.dtype)
        for column in view.features
    }
    named = keys.pack({column.name: rows[column.name].combine_chunks() for column in view.keys})
    return LatestBatch(keys=named, rows=codec.pack(arrays.versions(rows), values, nulls), passed=passed)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
