"""Replaces segments of a log: small ones by a larger one, or some by others without the rows or values of an entity.

A row is merged a logarithmic number of times. The new object is stored first; then one transaction replaces the
segments. So a kill at any point leaves all of the old segments or the new one, and of two processes that replace the
same segments one fails and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.log.bucket_order import BucketOrder, plain_schema
from skewless.infra.log.catalog import Segment
from skewless.infra.log.log_columns import KNOWN_AT, fill_known_at, merged_options, sorted_options
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.reading import GROUP_ROWS, read_tables, regroup
from skewless.infra.platform.storage.durable import remove_at_end, translate_disk_errors
from skewless.infra.platform.storage.objects import ObjectStorage, StoredObject, corrupt_error

# Returns the options of the Parquet writer for a schema.
Options = Callable[[pa.Schema], Mapping[str, Any]]
# Returns the new rows of a row group; it may have fewer rows, but must not change their schema or order.
Change = Callable[[pa.Table], pa.Table]


@contextmanager
def write_rows(
    storage: ObjectStorage,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    options: Options = merged_options,
    order: BucketOrder | None = None,
) -> Iterator[tuple[Path, int]]:
    """Write rows of one schema to a temporary file for the storage; yield its path and their number.

    Args:
        tables: in the order of the positions.
        order: of the rows in the file, which replaces ``options``; None: that of the positions.

    Raises:
        StoreError: the disk refused it.
    """
    rows, group_rows = 0, GROUP_ROWS
    if order is not None:
        tables, group_rows = map(order.sort, regroup(tables, order.block_rows)), order.group_rows
        schema, options = order.extend(schema), sorted_options
    with remove_at_end(storage.staging_path()) as path:
        with translate_disk_errors(path), pq.ParquetWriter(path, schema, **options(schema)) as writer:
            for table in tables:
                rows += table.num_rows
                if table.num_rows:
                    writer.write_table(table, row_group_size=group_rows)
        yield path, rows


def replace_segments(
    log: PartitionLog,
    old: Sequence[Segment],
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    options: Options,
    *,
    order: BucketOrder | None = None,
    is_merged: bool,
) -> None:
    """Replace adjacent segments by one with other rows; without rows they are removed. Positions may stay unused.

    Args:
        log: of a partition.
        old: the segments, in order.
        tables: the rows, from the first position of the segments on.
        schema: of the tables.
        options: of the Parquet writer.
        order: of the rows in the new file; None: that of the positions.
        is_merged: whether compaction has written the new segment, or had written the old one.

    Raises:
        ConflictError: another process has replaced or removed a segment; the log is unchanged.
        StoreError: the storage failed, or a segment is missing or altered; the log is unchanged.
    """
    for segment in old:
        # Before the replacement: the digest of the new object would make an altered row look genuine.
        log.storage.verify(segment.stored)
    first, name, new = old[0].first, log.object_name(old[0].first), None
    with write_rows(log.storage, tables, schema, options, order) as (path, rows):
        began_at = time.time()
        if rows:
            new = Segment(
                first=first,
                last=first + rows - 1,
                stored=log.storage.put_file(name, path),
                at_us=max(segment.at_us for segment in old),
                known_us=max((each.known_us for each in old if each.known_us is not None), default=None),
                is_merged=is_merged,
            )
    try:
        log.catalog.replace(log.partition, old, new, began_at=began_at)
    except ConflictError:
        log.catalog.discard(log.storage, log.partition, name)
        raise


def rewrite_segments(
    log: PartitionLog, is_due: Callable[[Path], bool], change: Change, options: Options = merged_options
) -> list[StoredObject]:
    """Rewrite the segments of a log that are due, in their order; return the objects that they had.

    Rows that are appended meanwhile may be missed.

    Args:
        log: of a partition.
        is_due: whether the segment in a file has to be rewritten.
        change: of its rows. If rows are removed, their positions stay unused.
        options: of the Parquet writer.

    Raises:
        StoreError: the storage failed, or a segment is missing or altered; a repeated call continues.
    """
    replaced: list[StoredObject] = []

    def visit(segment: Segment, path: Path) -> None:
        if is_due(path):
            written = pq.read_schema(path)
            order = BucketOrder.read(written)
            schema = written if order is None else plain_schema(written)
            tables = map(change, read_tables(path, segment.first, segment.first, segment.last, schema))
            is_merged = segment.is_merged
            replace_segments(log, [segment], tables, schema, options, order=order, is_merged=is_merged)
            replaced.append(segment.stored)

    visit_segments(log, visit)
    return replaced


def visit_segments(log: PartitionLog, visit: Callable[[Segment, Path], None]) -> None:
    """Call a function with each segment of a log and its local file; other processes may merge segments meanwhile.

    The process does not count as a reader, so a file may be deleted after the call. Rows of a segment that is merged
    meanwhile may be visited twice.

    Raises:
        StoreError: the storage failed, or a segment is missing or altered.
    """
    done = -1
    while due := [segment for segment in log.segments() if segment.last > done]:
        for segment in due:
            try:
                visit(segment, log.storage.local_path(segment.stored))
            except (ConflictError, StoreError) as error:
                is_listed = segment.stored in [each.stored for each in log.segments(segment.first, segment.first)]
                if is_listed and isinstance(error, StoreError):
                    raise
                break  # it was replaced or removed meanwhile
            done = segment.last


# An older file is merged again with newer rows only if it is not much larger than they are. So the number of times that
# a row is written grows with the logarithm of the file size.
_SIZE_FACTOR = 3
Group = Callable[[Segment], Hashable | None]


@dataclass(frozen=True, kw_only=True)
class CompactionReport:
    """The result of a compaction: replaced segments, new segments, and their rows."""

    merged: int = 0
    written: int = 0
    rows: int = 0


def compact(
    log: PartitionLog,
    *,
    keep: int = 60,
    target_rows: int = 1_000_000,
    group: Group = lambda segment: "applied" if segment.known_us is not None else None,
    options: Options = merged_options,
    order: BucketOrder | None = None,
    dry_run: bool = False,
) -> CompactionReport:
    """Merge new and small segments of a log into larger ones; return what was merged.

    Args:
        log: of a partition.
        keep: number of latest segments that are not merged, because more rows will follow soon.
        target_rows: maximum number of rows in a segment, unless one has more already.
        group: only neighbours of one group are merged; None: never. By default, segments that were applied.
        options: of the Parquet writer, for the columns of the log.
        order: of the rows in new files; None, or if the log lacks its keys: that of the positions. With an order, a new
            segment that is too large to be merged is written again alone.
        dry_run: return what would be merged.

    Raises:
        StoreError: the storage failed, or a segment is missing or altered; the log is unchanged.
    """
    if order is not None and not order.can_sort(log.schema()):
        order = None
    merges = plan_merges(log.segments(), keep=keep, target_rows=target_rows, group=group, can_rewrite=order is not None)
    done: list[Sequence[Segment]] = []
    with suppress(ConflictError):  # another process merges, and continues
        for segments in merges:
            if not dry_run:
                _merge(log, segments, options, order)
            done.append(segments)
    return CompactionReport(
        merged=sum(map(len, done)), written=len(done), rows=sum(item.rows for items in done for item in items)
    )


def plan_merges(
    segments: Sequence[Segment], *, keep: int, target_rows: int, group: Group, can_rewrite: bool = False
) -> list[Sequence[Segment]]:
    """Return neighbouring segments, each list to be merged into one, oldest first.

    Args:
        segments: of a log.
        keep, target_rows, group: as for ``compact``.
        can_rewrite: whether a list may be a new segment alone, which is too large to be merged later.

    >>> from skewless.infra.platform.storage.objects import StoredObject
    >>> def spans(*sizes: int) -> list[Segment]:
    ...     ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    ...     stored = StoredObject("o", 1, "", "")
    ...     return [Segment(end - n, end - 1, stored, is_merged=n > 3) for end, n in zip(ends, sizes)]
    >>> def rows(segments: list[Segment]) -> list[int]:
    ...     merges = plan_merges(segments, keep=0, target_rows=10, group=lambda _: "")
    ...     return [sum(each.rows for each in merge) for merge in merges]
    >>> rows(spans(50, 9, 2, 2, 2)), rows(spans(50, 4, 2, 2, 3))
    ([6], [8])
    """
    new = [segment for segment in segments if not segment.is_merged]
    rewritten = target_rows // 2 if can_rewrite else 2**63  # larger ones
    kept = {segment.first for segment in new[max(len(new) - keep, 0) :] if segment.rows <= rewritten}
    due = [segment for segment in segments if segment.first not in kept]
    merges: list[Sequence[Segment]] = []
    for name, run in groupby(due, key=group):
        if name is not None:
            merges += _plan_run(list(run), target_rows, rewritten)
    return merges


def _plan_run(run: Sequence[Segment], target_rows: int, rewritten: int) -> Iterator[Sequence[Segment]]:
    """Yield the merges of neighbours of one group."""
    start = next((i for i, segment in enumerate(run) if not segment.is_merged), len(run))
    rows = sum(segment.rows for segment in run[start:])
    # Adds earlier merged segments while they are not much larger than the new rows.
    while 0 < start < len(run) and run[start - 1].rows <= min(_SIZE_FACTOR * rows, target_rows // 2):
        start -= 1
        rows += run[start].rows
    merges: list[list[Segment]] = []
    size = target_rows
    for segment in run[start:]:
        # Positions may be missing between segments whose rows were past their retention.
        is_neighbour = bool(merges) and merges[-1][-1].last + 1 == segment.first
        if size + segment.rows > target_rows or not is_neighbour:
            merges.append([])
            size = 0
        merges[-1].append(segment)
        size += segment.rows
    yield from (each for each in merges if len(each) > 1 or (not each[0].is_merged and each[0].rows > rewritten))


def _merge(log: PartitionLog, segments: Sequence[Segment], options: Options, order: BucketOrder | None) -> None:
    schema = log.schema()
    if any(segment.known_us is not None for segment in segments):
        schema = schema.append(pa.field(KNOWN_AT, pa.int64()))
    rows = regroup(_read(log, segments, schema))
    replace_segments(log, segments, rows, schema, options, order=order, is_merged=True)


def _read(log: PartitionLog, segments: Sequence[Segment], schema: pa.Schema) -> Iterator[pa.Table]:
    for segment in segments:
        path, rows = log.storage.local_path(segment.stored), 0
        for table in read_tables(path, segment.first, segment.first, segment.last, schema):
            rows += table.num_rows
            yield table if segment.known_us is None else fill_known_at(table, segment.known_us)
        if rows != segment.rows:
            raise corrupt_error(path, f"it has {rows} rows, and had {segment.rows} when it was written")
