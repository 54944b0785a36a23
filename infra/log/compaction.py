"""Compaction of a log: merges small segments into large ones, so that a row is written a logarithmic number of times.

The merged object is stored first; then one transaction replaces the segments. So a kill at any point changes no row,
and if two processes merge the same segments, one of them fails and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from skewless.contract.errors import ConflictError
from skewless.infra.log.catalog import Segment
from skewless.infra.log.log_columns import KNOWN_AT, fill_known_at, merged_options
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.reading import read_tables, regroup
from skewless.infra.log.rewriting import Options, replace_segments
from skewless.infra.storage.objects import corrupt_error

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
) -> CompactionReport:
    """Merge new and small segments of a log into larger ones; return what was merged.

    Args:
        log: of a partition.
        keep: number of latest segments that are not merged, because more rows will follow soon.
        target_rows: maximum number of rows in a segment, unless one has more already.
        group: only neighbours of one group are merged; None: never. By default, segments that were applied.
        options: of the Parquet writer, for the columns of the log.

    Raises:
        StoreError: the storage failed, or a segment is missing or altered; the log is unchanged.
    """
    merges = plan_merges(log.segments(), keep=keep, target_rows=target_rows, group=group)
    done: list[Sequence[Segment]] = []
    with suppress(ConflictError):  # another process merges, and continues
        for segments in merges:
            _merge(log, segments, options)
            done.append(segments)
    return CompactionReport(
        merged=sum(map(len, done)), written=len(done), rows=sum(item.rows for items in done for item in items)
    )


def plan_merges(segments: Sequence[Segment], *, keep: int, target_rows: int, group: Group) -> list[Sequence[Segment]]:
    """Return neighbouring segments, each list to be merged into one, oldest first.

    >>> from skewless.infra.storage.objects import StoredObject
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
    kept = {segment.first for segment in new[max(len(new) - keep, 0) :]}
    due = [segment for segment in segments if segment.first not in kept]
    merges: list[Sequence[Segment]] = []
    for name, run in groupby(due, key=group):
        if name is not None:
            merges += _plan_run(list(run), target_rows)
    return merges


def _plan_run(run: Sequence[Segment], target_rows: int) -> Iterator[Sequence[Segment]]:
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
    yield from (merge for merge in merges if len(merge) > 1)


def _merge(log: PartitionLog, segments: Sequence[Segment], options: Options) -> None:
    schema = log.schema()
    if any(segment.known_us is not None for segment in segments):
        schema = schema.append(pa.field(KNOWN_AT, pa.int64()))
    replace_segments(log, segments, regroup(_read(log, segments, schema)), schema, options)


def _read(log: PartitionLog, segments: Sequence[Segment], schema: pa.Schema) -> Iterator[pa.Table]:
    for segment in segments:
        path, rows = log.storage.local_path(segment.stored), 0
        for table in read_tables(path, segment.first, segment.first, segment.last, schema):
            rows += table.num_rows
            yield table if segment.known_us is None else fill_known_at(table, segment.known_us)
        if rows != segment.rows:
            raise corrupt_error(path, f"it has {rows} rows, and had {segment.rows} when it was written")
