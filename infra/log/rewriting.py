"""Replaces segments of a log: by merged ones, or by ones without some values or rows for the erasure of an entity.

A new object is stored first; then one transaction replaces the segments. So a kill at any point leaves all of the old
segments or the new one, and a repeated call does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.log.catalog import Segment
from skewless.infra.log.log_columns import merged_options
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.reading import GROUP_ROWS, read_tables
from skewless.infra.storage.durable import translate_disk_errors
from skewless.infra.storage.objects import ObjectStorage, StoredObject

# Returns the options of the Parquet writer for a schema.
Options = Callable[[pa.Schema], Mapping[str, Any]]
# Returns the new rows of a row group; it may have fewer rows, but must not change their schema or order.
Change = Callable[[pa.Table], pa.Table]


@contextmanager
def write_rows(
    storage: ObjectStorage, tables: Iterable[pa.Table], schema: pa.Schema, options: Options = merged_options
) -> Iterator[tuple[Path, int]]:
    """Write rows of one schema to a temporary file for the storage; yield its path and their number.

    Raises:
        StoreError: the disk refused it.
    """
    path, rows = storage.staging_path(), 0
    try:
        with translate_disk_errors(path), pq.ParquetWriter(path, schema, **options(schema)) as writer:
            for table in tables:
                rows += table.num_rows
                if table.num_rows:
                    writer.write_table(table, row_group_size=GROUP_ROWS)
        yield path, rows
    finally:
        path.unlink(missing_ok=True)


def replace_segments(
    log: PartitionLog, old: Sequence[Segment], tables: Iterable[pa.Table], schema: pa.Schema, options: Options
) -> None:
    """Replace adjacent segments by one with other rows; without rows they are removed. Positions may stay unused.

    Args:
        log: of a partition.
        old: the segments, in order.
        tables: the rows, from the first position of the segments on.
        schema: of the tables.
        options: of the Parquet writer.

    Raises:
        ConflictError: another process has replaced or removed a segment; the log is unchanged.
        StoreError: the storage failed, or a segment is missing or altered; the log is unchanged.
    """
    for segment in old:
        # Before the replacement: the digest of the new object would make an altered row look genuine.
        log.storage.verify(segment.stored)
    first, name, new = old[0].first, log.object_name(old[0].first), None
    with write_rows(log.storage, tables, schema, options) as (path, rows):
        began_at = time.time()
        if rows:
            new = Segment(
                first=first,
                last=first + rows - 1,
                stored=log.storage.put_file(name, path),
                at_us=max(segment.at_us for segment in old),
                known_us=max((each.known_us for each in old if each.known_us is not None), default=None),
                is_merged=len(old) > 1 or old[0].is_merged,
            )
    try:
        log.catalog.replace(log.partition, old, new, began_at=began_at)
    except ConflictError:
        log.catalog.discard(log.storage, log.partition, name)
        raise


def rewrite_segments(
    log: PartitionLog, is_due: Callable[[Path], bool], change: Change, options: Options = merged_options
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
            schema = pq.read_schema(path)
            tables = map(change, read_tables(path, segment.first, segment.first, segment.last, schema))
            replace_segments(log, [segment], tables, schema, options)
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
