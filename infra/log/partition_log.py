"""The log of one partition: rows with dense positions, in Parquet segments listed by the catalog (SEMANTICS 1.4, 4.2).

Accepted rows of views, events of streams, predictions and outcomes are all kept in such logs.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.log.catalog import Catalog, End, Segment, moved_error
from skewless.infra.log.holes import check_holes
from skewless.infra.log.log_columns import (
    INGEST,
    KNOWN_AT,
    SEQ,
    decode_columns,
    encode_columns,
    fill_known_at,
    merged_options,
    unify_columns,
)
from skewless.infra.log.readers import register_reader
from skewless.infra.log.reading import GROUP_ROWS, read_tables
from skewless.infra.platform.storage.durable import translate_disk_errors
from skewless.infra.platform.storage.project_state import ProjectState

Check = Callable[[], None]
_ZSTD_FROM = 500  # rows


class StagedRows:
    """Numbered rows in a temporary file that are not part of the log before ``commit_rows``.

    Args:
        path: of the file.
        first: position of its first row.
    """

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = first
        self.rows = 0
        self.at_us = 0
        self.schema = pa.schema([])
        self._open_writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        """Number rows and write them; all batches must have one schema, without ``__seq``.

        Raises:
            StoreError: the file cannot be written.
        """
        numbered = _number(rows, self.first + self.rows)
        with translate_disk_errors(self.path):
            if self._open_writer is None:
                self.schema = numbered.schema
                options = merged_options(numbered.schema)
                self._open_writer = pq.ParquetWriter(self.path, numbered.schema, compression_level=1, **options)
            self._open_writer.write_table(numbered, row_group_size=GROUP_ROWS)
        self.rows += rows.num_rows
        self.at_us = _last_time(rows)

    def close(self) -> None:
        """Close the file; its rows are readable then, but not yet durable."""
        if self._open_writer is not None:
            with translate_disk_errors(self.path):
                self._open_writer.close()
            self._open_writer = None


class PartitionLog:
    """The log of one partition; positions start at 0 and have no gaps. Use an object from one thread.

    Args:
        state: of the project.
        partition: name of the partition, for example ``events/arrivals/ab12cd/0``.
    """

    def __init__(self, state: ProjectState, partition: str) -> None:
        self.partition = partition
        self.storage = state.storage
        self.catalog = Catalog(state.database)
        self._database = state.database
        self._columns: str | None = None
        self._schema = pa.schema([])
        self._next_position: int | None = None
        self._is_lost = False
        self._has_failed = False

    def next_seq(self) -> int:
        """Return the position after the last row of any writer."""
        return self.catalog.next_seq(self.partition)

    def schema(self) -> pa.Schema:
        """Return all columns that any row has, without ``__known_at``; empty for an empty log."""
        columns = self.catalog.columns(self.partition)
        if columns != self._columns:
            self._columns, self._schema = columns, decode_columns(columns)
        return self._schema

    def segments(self, first: int = 0, last: int | None = None) -> list[Segment]:
        """Return the segments with positions ``first`` to ``last``, both included, in order; None: to the end.

        Raises:
            StoreError: no segment has some of the rows, or the database is unavailable.
        """
        segments = self.catalog.segments(self.partition, first, last)
        check_holes(self.partition, segments, first)  # there may be less rows than asked for
        return segments

    def files(self, first: int = 0) -> list[str]:
        """Return local files with the positions from ``first`` on; they stay until this process ends.

        Their columns differ: merged files have ``__known_at``, and newer files may have more columns.

        Raises:
            StoreError: a file is missing, truncated or altered, or no segment has some of the rows.
        """
        register_reader(self._database)
        last = self.next_seq() - 1
        return self.local_files(self._whole_segments(first, last))

    def local_files(self, segments: Sequence[Segment]) -> list[str]:
        """Return the local files of segments; a process that uses them later has to register as a reader before."""
        return [str(path) for path in self.storage.local_paths([segment.stored for segment in segments])]

    def append(
        self, rows: pa.Table, *, at: int | None = None, check: Check | None = None, end: End | None = None
    ) -> Segment:
        """Number rows, at least one, and append them durably; return their segment.

        A writer never appends after rows of another writer: after a conflict, each further append fails too. An append
        that failed with a StoreError may still have been written, if the last reply was lost. Open the log again to
        find out.

        Args:
            rows: without ``__seq``. They may have new columns, and may lack old ones.
            at: the end of the log as known to the writer; None: the end of its last append, or for its first append,
                the current end of the log.
            check: called in the transaction of the append; an error of it leaves the log unchanged.
            end: of the application of earlier rows, recorded in that transaction; None: none.

        Raises:
            ConflictError: the log does not end at this position: another writer has appended, or the database was
                restored to an older state.
            StoreError: the rows cannot be written, or a column has another type than before.
        """
        if not rows.num_rows:
            raise ValueError("an append needs at least one row")
        first = self._check_position(at)
        numbered = _number(rows, first)
        if self._has_failed:
            self.check_end(first)  # while the database is down, nothing is stored in vain
        columns, began_at = self._add_columns(numbered.schema), time.time()
        stored = self.storage.put(self.object_name(first), _encode(numbered))
        values = {"at": first, "began_at": began_at, "at_us": _last_time(rows), "columns": columns}
        segment = self._add(stored, rows.num_rows, **values, check=check, end=end)
        self._next_position = segment.last + 1
        return segment

    @contextlib.contextmanager
    def stage_rows(self) -> Iterator[StagedRows]:
        """Create a temporary file for the next rows; ``commit_rows`` makes it a part of the log.

        Raises:
            StoreError: the file cannot be written.
        """
        staged = StagedRows(self.storage.staging_path(), self.next_seq())
        try:
            yield staged
        finally:
            with contextlib.suppress(StoreError):
                staged.close()
            with contextlib.suppress(OSError):
                staged.path.unlink()

    def commit_rows(self, staged: StagedRows, check: Check | None = None) -> Segment:
        """Make staged rows, at least one, durable and part of the log; return their segment.

        Raises:
            ConflictError: another writer has appended at this position.
            StoreError: the rows cannot be written.
        """
        staged.close()
        self.schema()  # another writer may have added columns before these rows
        columns, began_at = self._add_columns(staged.schema), time.time()
        stored = self.storage.put_file(self.object_name(staged.first), staged.path)
        return self._add(
            stored, staged.rows, at=staged.first, began_at=began_at, at_us=staged.at_us, columns=columns, check=check
        )

    def check_end(self, at: int) -> None:
        """Check that the log ends at position ``at``, as its writer believes.

        Raises:
            ConflictError: another writer has appended, or the database was restored to an older state; each further
                ``append`` fails too.
        """
        if self.next_seq() != at:
            self._is_lost = True
            raise moved_error(self.partition, at)

    def read(self, first: int = 0, last: int | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield rows at positions ``first`` to ``last``, both included, in order, at most 100,000 at a time.

        All tables have one schema: a column that some rows lack is null for them; a column that no row has is of type
        null. Segments may be replaced meanwhile.

        Args:
            first: first position.
            last: None: the end of the log when the first row is read.
            columns: names in the requested order. ``__known_at`` is the time at which the row was completely applied,
                int64 microseconds, null if not recorded. None: all columns without ``__known_at``.

        Raises:
            StoreError: a segment is missing, truncated or altered, or no segment has some of the rows.
        """
        end = self.next_seq() - 1
        last = end if last is None else min(last, end)
        schema, position = self._select_schema(columns), max(first, 0)
        while position <= last:
            for segment in self._whole_segments(position, last):
                try:
                    for rows in _read_segment(segment, self.storage.local_path(segment.stored), position, last, schema):
                        position += rows.num_rows
                        yield rows
                except StoreError:
                    if segment.stored in [each.stored for each in self.segments(segment.first, segment.first)]:
                        raise
                    break  # it was replaced or removed meanwhile
            else:
                return

    def record_end(self, first: int, last: int, ended_us: int) -> None:
        """Record when positions ``first`` to ``last``, both included, were completely applied; microseconds.

        The first record of a segment's last position counts.
        """
        if not 0 <= first <= last:
            raise ValueError(f"positions {first} to {last} are not a range")
        self.catalog.record_end(self.partition, first, last, ended_us)

    def read_ends(self) -> pa.Table:
        """Return the recorded ends that are not in merged files: int64 columns first, last, ended_us; ascending."""
        ended = [item for item in self.segments() if item.known_us is not None and not item.is_merged]
        columns = np.array([(item.first, item.last, item.known_us) for item in ended], np.int64).reshape(-1, 3).T
        return pa.table([int64_array(column) for column in columns], names=["first", "last", "ended_us"])

    def has_all_ends(self) -> bool:
        """Return whether every position has a recorded end."""
        return self.catalog.has_all_ends(self.partition)

    def object_name(self, first: int) -> str:
        """Return a new name for an object that begins at a position."""
        return f"log/{self.partition}/{first:020d}-{uuid.uuid4().hex[:12]}.parquet"

    def _add(self, stored: Any, rows: int, **values: Any) -> Segment:  # noqa: ANN401 - as Catalog.append
        try:
            segment = self.catalog.append(self.partition, stored, rows, **values)
        except ConflictError:
            with contextlib.suppress(StoreError):
                self.catalog.discard(self.storage, self.partition, stored.name)
            self._is_lost = self.next_seq() != values["at"]  # a check that failed changes nothing
            raise
        except StoreError:
            self._has_failed = True
            raise
        self._has_failed = False
        if values["columns"]:
            self._columns, self._schema = values["columns"], decode_columns(values["columns"])
        return segment

    def _whole_segments(self, first: int, last: int) -> list[Segment]:
        segments = self.catalog.segments(self.partition, first, last)
        check_holes(self.partition, segments, first, last)
        return segments

    def _check_position(self, at: int | None) -> int:
        if self._is_lost:
            raise moved_error(self.partition, at)
        if self._next_position is None:
            self._next_position = self.next_seq()
        if at is None or at == self._next_position:
            return self._next_position
        self._is_lost = True
        raise moved_error(self.partition, at)

    def _add_columns(self, schema: pa.Schema) -> str:
        """Return the log's columns with those of new rows, encoded; empty if there are no new ones."""
        if self._columns is None:
            self.schema()
        merged = unify_columns(self.partition, self._schema, schema)
        return "" if merged.equals(self._schema) else encode_columns(merged)

    def _select_schema(self, columns: Sequence[str] | None) -> pa.Schema:
        schema = self.schema()
        if columns is None:
            return schema
        types = {KNOWN_AT: pa.int64()} | {field.name: field.type for field in schema}
        return pa.schema([(name, types.get(name, pa.null())) for name in columns])


def _read_segment(segment: Segment, path: Path, first: int, last: int, schema: pa.Schema) -> Iterator[pa.Table]:
    for rows in read_tables(path, segment.first, first, last, schema):
        if KNOWN_AT in schema.names and segment.known_us is not None:
            yield fill_known_at(rows, segment.known_us)
        else:
            yield rows


def _number(rows: pa.Table, first: int) -> pa.Table:
    return rows.append_column(SEQ, int64_array(np.arange(first, first + rows.num_rows)))


def _last_time(rows: pa.Table) -> int:
    return int(rows[INGEST][-1].as_py() or 0) if INGEST in rows.column_names else 0


def _encode(rows: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    # On a batch of a few hundred rows, dictionaries, statistics and zstd for each column cost more than they save.
    compression = "zstd" if rows.num_rows >= _ZSTD_FROM else "snappy"
    pq.write_table(rows, sink, compression=compression, use_dictionary=False, write_statistics=[SEQ])
    return memoryview(sink.getvalue())
