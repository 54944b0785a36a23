"""The accepted log of one stream partition: small batch files, merged into files listed by a manifest (SEMANTICS 4.2).

A batch is written under a temporary name, made durable, then linked to its final name, which is its first position. So
a file under a final name is complete, and if two writers race, one fails. Compaction merges older batches.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import ConflictError
from skewless.infra.log.accepted import SEQ
from skewless.infra.log.compaction import Compactor, CompactReport
from skewless.infra.log.ends import KNOWN_AT, EndsFile, add_known_at, compacted_ends, ends_table, resolve_overlaps
from skewless.infra.log.inventory import add_to_inventory, missing_file_error
from skewless.infra.log.log_files import LogFiles
from skewless.infra.log.manifest import FileRange, batch_path
from skewless.infra.log.reading import read_tables
from skewless.infra.storage.durable import disk_error, make_folder, sync_folder, write_durable


class EventLog:
    """The log of one stream partition; ``seq`` starts at 0 and has no gaps. Use it from one thread.

    Args:
        root: folder of all logs.
        partition: folder below ``root``, for example ``events/arrivals/ab12cd/0``.
        clock: wall-clock seconds, for the grace time.
        grace_s: how long merged files stay for running readers, in seconds.
        sync_ends: whether each append also syncs the records of ``record_end``.
    """

    def __init__(
        self,
        root: Path,
        partition: str,
        *,
        clock: Callable[[], float] = time.time,
        grace_s: float = 600,
        sync_ends: bool = False,
    ) -> None:
        self.partition = partition
        self._folder = root / partition
        self._files = LogFiles(root, partition)
        self._ends = EndsFile(root, partition)
        self._compactor = Compactor(self._folder, self._files, self._ends, clock, grace_s)
        self._sync_ends = sync_ends
        self._next_position: int | None = None
        self._is_lost = False

    def next_seq(self) -> int:
        """Return the position after the last row of any writer.

        Raises:
            StoreError: a file is corrupt.
        """
        return self._files.next_seq()

    def schema(self) -> pa.Schema:
        """Return all columns that any row has, without ``__known_at``; empty for an empty log.

        Raises:
            StoreError: a file is missing or corrupt.
        """
        return self._files.schema()

    def append(self, rows: pa.Table, *, at: int | None = None, check: Callable[[], None] = lambda: None) -> FileRange:
        """Number rows, at least one, and append them durably; return their file.

        A writer never appends after rows of another writer: after a conflict, each further append fails too. An append
        that failed with a StoreError may still have been written, if the disk failed in the last step. Open the log
        again to find out.

        Args:
            rows: without ``__seq``. They may have new columns, and may lack old ones.
            at: the end of the log as known to the writer; None: the end of its last append, or for its first append,
                the current end of the log.
            check: called last, before the rows become part of the log; what it raises prevents that.

        Raises:
            ConflictError: another writer has appended at this position.
            StoreError: the file cannot be written, or a column has another type than before.
        """
        if not rows.num_rows:
            raise ValueError("an append needs at least one row")
        first = self._check_position(at)
        numbered = rows.append_column(SEQ, pa.array(np.arange(first, first + rows.num_rows, dtype=np.int64)))
        self._files.unify_schema(numbered.schema)
        span = FileRange(path=batch_path(self._folder, first), first=first, last=first + rows.num_rows - 1)
        self._create(span, numbered, check)
        self._files.extend(span, numbered.schema)
        self._next_position = span.last + 1
        return span

    def check_end(self, at: int) -> None:
        """Check that the log ends at position ``at``, as its writer believes.

        Raises:
            ConflictError: another writer has appended; each further ``append`` fails too.
            StoreError: a file is corrupt.
        """
        if self._files.next_seq() > at:
            raise self._conflict(at)

    def spans(self, first: int = 0, last: int | None = None) -> list[FileRange]:
        """Return the files with positions ``first`` to ``last``, both included, in order; None: to the end.

        The files exist at least for the grace time, even if they are compacted in the meantime.

        Raises:
            StoreError: a file is missing or corrupt.
        """
        return self._files.spans(first, last)

    def files(self, first: int = 0) -> list[str]:
        """Return the paths of the files with positions from ``first`` on.

        Their columns differ: compacted files have ``__known_at``, and newer files may have more columns.
        """
        return [str(span.path) for span in self.spans(first)]

    def read(self, first: int = 0, last: int | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield rows at positions ``first`` to ``last``, both included, in order, at most 100,000 at a time.

        All tables have one schema: a column that some rows lack is null for them; a column that no row has is of type
        null.

        Args:
            first: first position.
            last: None: the end of the log when the first row is read.
            columns: names in the requested order. ``__known_at`` is the time at which the row was completely applied,
                int64 microseconds, null if not recorded. None: all columns without ``__known_at``.

        Raises:
            StoreError: a file is missing or corrupt.
        """
        end = self.next_seq() - 1
        last = end if last is None else min(last, end)
        schema = self._select_schema(columns)
        position, failed = max(first, 0), -1
        while position <= last:
            try:
                for rows in self._read_rows(position, last, schema):
                    position += rows.num_rows
                    yield rows
            except FileNotFoundError as error:
                # The file was compacted and removed since we read the manifest: read the manifest again, once.
                if failed == position:
                    raise missing_file_error(Path(error.filename or self._folder)) from error
                failed = position
            else:
                return

    def record_end(self, first: int, last: int, ended_us: int) -> None:
        """Record when positions ``first`` to ``last``, both included, were completely applied; microseconds.

        The record is not synced: a power cut may lose the latest ones.

        Raises:
            StoreError: the file cannot be written.
        """
        if not 0 <= first <= last:
            raise ValueError(f"positions {first} to {last} are not a range")
        self._ends.record(first, last, ended_us)

    def read_ends(self) -> pa.Table:
        """Return the recorded ends that are not in compacted files: int64 columns first, last, ended_us.

        The ranges are disjoint and ascending. A position belongs to the first record that covers it, and may have none.
        Call it before ``spans`` or ``files``: an end that compaction removes afterwards is in ``__known_at`` there.
        """
        records = self._ends.read()
        stored_ends = compacted_ends(self._files.manifest.read())
        merged = resolve_overlaps(np.concatenate([stored_ends, records]))
        return ends_table(merged[~np.isin(merged["first"], stored_ends["first"])])

    def has_all_ends(self) -> bool:
        """Return whether every position has a recorded end."""
        covered = resolve_overlaps(np.concatenate([compacted_ends(self._files.manifest.read()), self._ends.read()]))
        return int((covered["last"] - covered["first"] + 1).sum()) >= self.next_seq()

    def compact(self, *, keep: int = 60, target_rows: int = 1_000_000) -> CompactReport:
        """Merge batch files and small compacted files into larger ones; merged files stay for the grace time.

        If two processes compact at the same time, one does nothing. A kill at any time leaves a valid log.

        Args:
            keep: number of latest batch files that are not merged; 0 only if nobody appends.
            target_rows: maximum number of rows in a file, unless one batch has more.

        Raises:
            StoreError: a file cannot be written, is missing or corrupt.
        """
        return self._compactor.compact(keep=keep, target_rows=target_rows)

    def sweep(self) -> None:
        """Remove temporary files of killed processes and merged files, each after the grace time.

        Raises:
            StoreError: a file cannot be removed.
        """
        self._compactor.sweep()

    def _check_position(self, at: int | None) -> int:
        if self._is_lost:
            raise self._conflict(at)
        if self._next_position is None:
            self._files.schema()
            self._next_position = self._files.next_seq()
        if at is None or at == self._next_position:
            return self._next_position
        if at > self._next_position:
            raise ValueError(f"position {at} would leave a gap after {self._next_position}")
        raise self._conflict(at)

    def _create(self, span: FileRange, rows: pa.Table, check: Callable[[], None]) -> None:
        temporary = self._folder / f".{uuid.uuid4().hex}.tmp"
        data = _encode(rows)
        try:
            make_folder(self._folder)
            # Complete and durable before it gets its name; the link fails if another writer has the name.
            write_durable(temporary, data)
            check()
            os.link(temporary, span.path)
            sync_folder(self._folder)
        except FileExistsError as error:
            raise self._conflict(span.first) from error
        except OSError as error:
            raise disk_error(span.path, error) from error
        finally:
            temporary.unlink(missing_ok=True)
        self._check_fence(span)
        add_to_inventory(self._files.inventory, span.path, span.rows)
        if self._sync_ends:
            self._ends.sync()

    def _check_fence(self, span: FileRange) -> None:
        # A late writer could reuse the name of a file that compaction had merged and removed.
        if self._files.manifest.read().end >= span.first:
            span.path.unlink(missing_ok=True)
            raise self._conflict(span.first)

    def _conflict(self, first: int | None) -> ConflictError:
        self._is_lost = True
        return ConflictError(
            f"log partition {self.partition!r}",
            "was written by another process",
            value=first,
            fix="open it again and continue after its last row",
        )

    def _select_schema(self, columns: Sequence[str] | None) -> pa.Schema:
        schema = self._files.schema()
        if columns is None:
            return schema
        types = {KNOWN_AT: pa.int64()} | {field.name: field.type for field in schema}
        return pa.schema([(name, types.get(name, pa.null())) for name in columns])

    def _read_rows(self, first: int, last: int, schema: pa.Schema) -> Iterator[pa.Table]:
        if KNOWN_AT not in schema.names:
            for span in self.spans(first, last):
                yield from read_tables(span, first, last, schema)
            return
        # Read before the files: ends that compaction removes afterwards are in the files by then.
        ends = ends_table(resolve_overlaps(self._ends.read()))
        read_schema = schema if SEQ in schema.names else schema.append(pa.field(SEQ, pa.int64()))
        for span in self.spans(first, last):
            for rows in read_tables(span, first, last, read_schema):
                yield add_known_at(rows, ends).select(schema.names)


def _encode(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    # Dictionaries and statistics for each column cost more than they save on a batch of a few hundred rows.
    pq.write_table(rows, sink, compression="zstd", use_dictionary=False, write_statistics=[SEQ])
    return sink.getvalue()
