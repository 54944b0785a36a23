"""Finds the latest row of each entity in a range of log positions, and writes it to the online store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.arrow_numbers import find_nulls
from skewless.contract.keys import KeyCodec
from skewless.contract.plan import View
from skewless.contract.rows import NO_TIME, RowCodec, Versions
from skewless.contract.status import BoolArray
from skewless.infra.log.bucket_order import BucketOrder, BucketRange, plan_scans, scans_sql
from skewless.infra.log.log_columns import CREATED, EVENT, REJECT, RUN, SEQ, TOMBSTONE
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.reads.offline import arrays
from skewless.infra.reads.offline.sql import quote_all
from skewless.infra.reads.online.port import OnlineWriter

if TYPE_CHECKING:
    import duckdb

# Kind of the documents that request to write a view's online rows again, by its log partition.
BACKFILLS = "backfills"
# One byte and one narrow row in DuckDB for each position: what bounds the memory, whatever the log holds.
_RANGE_ROWS = 8_000_000
_BATCH_ROWS = 50_000

T = TypeVar("T")
Batch: TypeAlias = tuple[pa.LargeBinaryArray, pa.LargeBinaryArray, int]


@dataclass(frozen=True, kw_only=True)
class LatestRows:
    """Writes the latest rows of one view.

    Args:
        project: part of the keys.
        view: of the rows.
        log: of the view.
        connection: to DuckDB.
        buckets: the entities of these buckets are written; None: all entities.
    """

    project: str
    view: View
    log: PartitionLog
    connection: duckdb.DuckDBPyConnection
    buckets: BucketRange | None = None

    def write(self, online: OnlineWriter, first: int, on_rows: Callable[[int], None]) -> tuple[int, int]:
        """Write the latest row of each entity from position ``first`` on; return the numbers of sent and written rows.

        Args:
            online: keeps the newer row, so that the order and repetitions of a key do not matter.
            first: a log position.
            on_rows: called repeatedly with a number of processed positions.
        """
        sent = written = 0
        for keys, rows, n_positions in self.batches(first, self.log.next_seq() - 1):
            sent += len(keys)
            written += online.put(keys, rows)
            on_rows(n_positions)
        return sent, written

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the latest rows of entities at positions ``first`` to ``last``: keys, packed rows, and a number.

        The number says how many log positions a batch covers.
        """
        for start in range(first, last + 1, _RANGE_ROWS):
            # Packs the next batch while the store writes this one.
            yield from _prefetch(self._pack_batches(start, min(start + _RANGE_ROWS, last + 1)))

    def _pack_batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield keys and packed rows for the store, and the number of log positions that they cover."""
        is_latest = self._find_latest(start, stop)
        keys, codec = KeyCodec(self.project, self.view), RowCodec(self.view)
        for rows in _read_rows(self.log, self.view, start, stop, self.buckets):
            indices = rows[SEQ].to_numpy() - start
            latest = rows.filter(pa.array(is_latest[indices])).combine_chunks()
            own = latest if self.buckets is None else self.buckets.select(latest, self.view.keys)
            yield *pack_columns(self.view, keys, codec, own, arrays.to_versions(own)), len(indices)

    def _find_latest(self, start: int, stop: int) -> BoolArray:
        """Return which positions hold the latest row of their key, shape ``(stop - start,)``."""
        is_latest = np.zeros(stop - start, dtype=np.bool_)
        scans = plan_scans(self.log.files(start), self.view.keys, self.buckets)
        query = latest_sql(self.view, scans_sql(scans))
        parameters = [*(scan.files for scan in scans), start, stop]
        for batch in self.connection.sql(query, params=parameters).to_arrow_reader(1_000_000):
            is_latest[batch[SEQ].to_numpy() - start] = True
        return is_latest


def latest_sql(view: View, log: str = "read_parquet(?)") -> str:
    """Return SQL for ``__seq`` of the latest row of each key; bind files, first position and exclusive end.

    Args:
        log: SQL of the log's rows.
    """
    # The latest within this range only. Against rows of other ranges and writers, the store's compare-and-set decides
    # (SEMANTICS 2.3). Values are not read here, so that the sort has narrow rows.
    keys = quote_all(column.name for column in view.keys)
    rows = f"SELECT {keys}, {EVENT}, {CREATED}, {SEQ} FROM {log}"
    # The order of SEMANTICS 2.1, in which a missing created time is the lowest.
    return (
        f"SELECT {SEQ} FROM ({rows} WHERE {REJECT} IS NULL AND {SEQ} >= ? AND {SEQ} < ?) QUALIFY row_number() OVER"
        f" (PARTITION BY {keys} ORDER BY {EVENT} DESC, coalesce({CREATED}, {NO_TIME}) DESC, {SEQ} DESC) = 1"
    )


def _read_rows(log: PartitionLog, view: View, start: int, stop: int, buckets: BucketRange | None) -> Iterator[pa.Table]:
    """Yield log rows of a range, rejected ones included, in batches: all that may be of some buckets."""
    columns = [SEQ, EVENT, CREATED, RUN, TOMBSTONE, *(column.name for column in (*view.keys, *view.features))]
    for segment in log.segments(start, stop - 1):
        path = log.storage.local_path(segment.stored)
        with pq.ParquetFile(path, pre_buffer=False) as file:  # buffers would live until the end of the file
            groups = _select_groups(file, segment.first, start, stop)
            if buckets is not None and buckets.is_order_of(str(path), view.keys):
                groups = buckets.select_groups(file)
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns):
                rows = pa.Table.from_batches([batch])
                seq = rows[SEQ].to_numpy()
                yield rows.filter(pa.array((seq >= start) & (seq < stop)))


def _select_groups(file: pq.ParquetFile, first: int, start: int, stop: int) -> list[int]:
    if BucketOrder.read(file.schema_arrow) is not None:
        return list(range(file.num_row_groups))
    # Positions are dense within a file (SEMANTICS 1.4), so row counts give the positions of each group.
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    ends = first + np.cumsum(sizes)
    return [i for i, size in enumerate(sizes) if ends[i] > start and ends[i] - size < stop]


def pack_columns(
    view: View, keys: KeyCodec, codec: RowCodec, columns: pa.Table | Mapping[str, pa.ChunkedArray], versions: Versions
) -> tuple[pa.LargeBinaryArray, pa.LargeBinaryArray]:
    """Return the packed keys and rows of a view's columns; times are int64 microseconds."""
    nulls = {column.name: find_nulls(columns[column.name]) for column in view.features}
    values = {
        column.name: columns[column.name].combine_chunks()
        if column.dtype.is_text
        else arrays.to_numpy(columns[column.name], column.dtype)
        for column in view.features
    }
    packed_keys = keys.pack({column.name: columns[column.name].combine_chunks() for column in view.keys})
    return packed_keys, codec.pack(versions, values, nulls)


def _prefetch(items: Iterator[T]) -> Iterator[T]:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, items, None)
        while (item := future.result()) is not None:
            future = pool.submit(next, items, None)
            yield item
