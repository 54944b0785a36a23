"""Rewrites segments of a log without some values or rows: for the erasure of an entity.

A new object is stored first; then one transaction replaces the segment. So a kill at any point leaves each segment as
it was or completely rewritten, and a repeated call rewrites the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.log.catalog import Segment
from skewless.infra.log.log_columns import merged_options
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.reading import GROUP_ROWS
from skewless.infra.storage.durable import disk_error
from skewless.infra.storage.objects import StoredObject, corrupt_error

# Returns the new rows of a row group; it may have fewer rows, but must not change their schema or order.
Change = Callable[[pa.Table], pa.Table]


def rewrite_segments(
    log: PartitionLog,
    is_due: Callable[[Path], bool],
    change: Change,
    options: Callable[[pa.Schema], Mapping[str, Any]] = merged_options,
) -> list[StoredObject]:
    """Rewrite the segments of a log that are due; return the objects that they had.

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
            _rewrite(log, segment, path, change, options)
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
    done, is_complete = -1, False
    while not is_complete:
        is_complete = True
        for segment in [each for each in log.segments() if each.last > done]:
            path = _find_file(log, segment)
            is_complete = path is not None and _visit(visit, segment, path)
            if not is_complete:
                break
            done = segment.last


def _find_file(log: PartitionLog, segment: Segment) -> Path | None:
    """Return the file of a segment; None if it was replaced or removed meanwhile."""
    try:
        return log.storage.local_path(segment.stored)
    except StoreError:
        if segment.stored in [each.stored for each in log.segments(segment.first, segment.first)]:
            raise
        return None


def _visit(visit: Callable[[Segment, Path], None], segment: Segment, path: Path) -> bool:
    """Return whether the segment was still part of the log."""
    try:
        visit(segment, path)
    except ConflictError:
        return False
    return True


def _rewrite(
    log: PartitionLog,
    segment: Segment,
    path: Path,
    change: Change,
    options: Callable[[pa.Schema], Mapping[str, Any]],
) -> None:
    # Before the rewrite: the digest of the new object would make an altered row look genuine.
    log.storage.verify(segment.stored)
    staged, name, new = log.storage.staging_path(), log.object_name(segment.first), None
    try:
        rows = _write(path, staged, change, options)
        began_at = time.time()
        if rows:
            stored = log.storage.put_file(name, staged)
            new = segment._replace(last=segment.first + rows - 1, stored=stored)
    except pa.ArrowException as error:
        raise corrupt_error(path, error) from error
    except OSError as error:
        raise disk_error(staged, error) from error
    finally:
        staged.unlink(missing_ok=True)
    try:
        log.catalog.replace(log.partition, [segment], new, began_at=began_at)
    except ConflictError:
        log.catalog.discard(log.storage, log.partition, name)
        raise


def _write(path: Path, target: Path, change: Change, options: Callable[[pa.Schema], Mapping[str, Any]]) -> int:
    """Write the changed rows of a file to another; return how many."""
    count = 0
    with (
        pq.ParquetFile(path) as file,
        pq.ParquetWriter(target, file.schema_arrow, **options(file.schema_arrow)) as writer,
    ):
        for group in range(file.num_row_groups):
            rows = change(file.read_row_group(group))
            count += rows.num_rows
            if rows.num_rows:
                writer.write_table(rows, row_group_size=GROUP_ROWS)
    return count
