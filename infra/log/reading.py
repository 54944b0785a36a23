"""Reads rows from the files of an event log, whose columns may differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.arrow_numbers import int64_array, numbers
from skewless.contract.errors import StoreError
from skewless.infra.log.bucket_order import BucketOrder
from skewless.infra.log.log_columns import SEQ
from skewless.infra.platform.storage.objects import corrupt_error, missing_error

# Readers skip row groups by their statistics, and hold one row group in memory at a time.
GROUP_ROWS = 100_000
# Threads cost more than they save on a batch of a few hundred rows.
_THREADS_FROM = 10_000


def read_tables(path: Path, start: int, first: int, last: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of one file at positions ``first`` to ``last``, in order and in bounded batches.

    Args:
        path: of the file.
        start: position of its first row.
        first: first position.
        last: last position, included.
        schema: the columns of each batch; columns that the file lacks are null.

    Raises:
        StoreError: the file is missing or corrupt.
    """
    try:
        with pq.ParquetFile(path) as file:
            for at, rows in _read_groups(file, start, first, last, schema):
                begin = max(first - at, 0)
                # A table without columns cannot be sliced, so null columns are added before.
                yield conform(rows, schema).slice(begin, last + 1 - at - begin)
    except FileNotFoundError as error:
        raise missing_error(path) from error
    except (OSError, pa.ArrowException) as error:
        raise corrupt_error(path, error) from error


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with the columns of a schema, in its order; columns that the rows lack are null.

    >>> conform(pa.table({"b": [1], "a": [2]}), pa.schema([("a", pa.int64()), ("c", pa.string())])).to_pylist()
    [{'a': 2, 'c': None}]
    """
    if rows.schema.equals(schema):
        return rows
    names = set(rows.column_names)
    columns = [
        rows[field.name].cast(field.type) if field.name in names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def regroup(batches: Iterable[pa.Table | pa.RecordBatch], size: int = GROUP_ROWS) -> Iterator[pa.Table]:
    """Yield the same rows in tables of exactly ``size`` rows; the last one may be smaller."""
    pending: list[pa.Table] = []
    count = 0
    for batch in batches:
        pending.append(batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch]))
        count += batch.num_rows
        while count >= size:
            rows = pa.concat_tables(pending)
            yield rows.slice(0, size).combine_chunks()
            pending, count = [rows.slice(size)], count - size
    if count:
        yield pa.concat_tables(pending).combine_chunks()


@contextmanager
def translate_query_errors(log: str) -> Iterator[None]:
    """Raise an error of DuckDB, which reads the files of a log in the block, as StoreError."""
    import duckdb  # noqa: PLC0415 - a server reads logs without it

    try:
        yield
    except duckdb.Error as error:
        raise StoreError(log, f"cannot be read: {error}", fix="restore the corrupt file") from error


def _read_groups(
    file: pq.ParquetFile, start: int, first: int, last: int, schema: pa.Schema
) -> Iterator[tuple[int, pa.Table]]:
    stored = set(file.schema_arrow.names)
    columns = [name for name in schema.names if name in stored]
    if (order := BucketOrder.read(file.schema_arrow)) is not None:
        yield from _read_blocks(file, order.block_rows, start, first, last, [*columns, *({SEQ} - set(columns))])
        return
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if start <= last and start + rows > first:
            yield start, file.read_row_group(group, columns=columns, use_threads=rows >= _THREADS_FROM)
        start += rows


def _read_blocks(
    file: pq.ParquetFile, size: int, start: int, first: int, last: int, columns: Sequence[str]
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of a file in blocks of some size, which are sorted by bucket, in the order of their positions."""
    groups, rows = list[int](), 0
    for group in range(file.num_row_groups):
        groups.append(group)
        rows += file.metadata.row_group(group).num_rows
        if rows < size and group < file.num_row_groups - 1:
            continue
        if start <= last and start + rows > first:
            block = file.read_row_groups(groups, columns=columns, use_threads=rows >= _THREADS_FROM)
            order = np.argsort(numbers(block[SEQ]))[max(first - start, 0) : last + 1 - start]
            for at in range(0, len(order), GROUP_ROWS):
                yield max(first, start) + at, block.take(int64_array(order[at : at + GROUP_ROWS]))
        groups, start, rows = [], start + rows, 0
