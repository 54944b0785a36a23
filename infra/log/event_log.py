"""The accepted log of one stream partition: small batch files, merged behind a manifest (SEMANTICS 1.4, 4.2).

A batch is written beside its place, made durable, then linked to its name, which is its first position: it stands
whole or not at all, and of two writers one loses. Compaction merges the older ones.
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
from skewless.infra.log.ends import KNOWN_AT, EndsFile, as_table, baked, first_cover, with_known_at
from skewless.infra.log.inventory import missing, noted
from skewless.infra.log.log_files import LogFiles
from skewless.infra.log.manifest import FileRange, batch_path
from skewless.infra.log.reading import tables
from skewless.infra.storage.durable import make_folder, refused, sync_folder, write_durable


class EventLog:
    """The log of one stream partition; ``seq`` is dense and starts at 0. Used from one thread.

    Args:
        partition: for example ``events/arrivals/ab12cd/0``: the folder below ``root``.
        clock: seconds of real time, for what waits for its grace time.
        grace_s: how long files that were compacted stay for those who still read them.
        sync_ends: whether each append also waits for the disk to have the records of ``ended``.
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
        self._chain = LogFiles(root, partition)
        self._ends = EndsFile(root, partition)
        self._compactor = Compactor(self._folder, self._chain, self._ends, clock, grace_s)
        self._sync_ends = sync_ends
        self._mine: int | None = None
        self._is_lost = False

    def next_seq(self) -> int:
        """Return the position behind the last row, whoever wrote it.

        Raises:
            StoreError: a file is damaged.
        """
        return self._chain.next_seq()

    def schema(self) -> pa.Schema:
        """Return all columns that the rows have had so far, without ``__known_at``; none: there are no rows.

        Raises:
            StoreError: a file is missing or damaged.
        """
        return self._chain.schema()

    def append(self, rows: pa.Table, *, at: int | None = None) -> FileRange:
        """Number the rows, at least one, and write them durably; return their file.

        A writer never goes on behind rows that it has not written: once it has lost its position, each further append
        is refused too. What is refused with a StoreError may stand nevertheless, if the disk failed as the last step:
        open the log anew to see what it holds.

        Args:
            rows: without ``__seq``. They may have new columns, and may lack old ones.
            at: the end of the log as the writer knows it; None: where its last append ended, or for its first one,
                where the log ends now.

        Raises:
            ConflictError: another writer took the position.
            StoreError: the disk refused, or a column has another type than before.
        """
        if not rows.num_rows:
            raise ValueError("an append needs at least one row")
        first = self._position(at)
        numbered = rows.append_column(SEQ, pa.array(np.arange(first, first + rows.num_rows, dtype=np.int64)))
        self._chain.united(numbered.schema)
        span = FileRange(path=batch_path(self._folder, first), first=first, last=first + rows.num_rows - 1)
        self._create(span, numbered)
        self._chain.extend(span, numbered.schema)
        self._mine = span.last + 1
        return span

    def check_end(self, at: int) -> None:
        """Check that the log ends where its writer believes it to end.

        Raises:
            ConflictError: another writer took the position; as after such an ``append``, each further one is refused.
            StoreError: a file is damaged.
        """
        if self._chain.next_seq() > at:
            raise self._lost(at)

    def spans(self, first: int = 0, last: int | None = None) -> list[FileRange]:
        """Return the files that hold positions ``first`` to ``last``, both included, in order; None: to the end.

        Files that have been compacted since are there for the grace time.

        Raises:
            StoreError: a file is missing or damaged.
        """
        return self._chain.spans(first, last)

    def files(self, first: int = 0) -> list[str]:
        """Return the paths of the files that hold positions from ``first`` on.

        Their columns differ: compacted ones have ``__known_at``, and newer ones may have more columns.
        """
        return [str(span.path) for span in self.spans(first)]

    def read(self, first: int = 0, last: int | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows at positions ``first`` to ``last``, both included, in order and at most 100,000 at a time.

        All tables have one schema: a column that some rows lack is null there, a column that the log does not know is
        of type null.

        Args:
            last: None: to the end as it is at the first row.
            columns: names, in the order wanted; ``__known_at`` is when the row's applying ended, int64 microseconds,
                null where that was not recorded. None: all the log has, without ``__known_at``.

        Raises:
            StoreError: a file is missing or damaged.
        """
        end = self.next_seq() - 1
        last = end if last is None else min(last, end)
        schema = self._wanted(columns)
        position, failed = max(first, 0), -1
        while position <= last:
            try:
                for rows in self._rows(position, last, schema):
                    position += rows.num_rows
                    yield rows
            except FileNotFoundError as error:
                # Compacted and removed while we were busy with what we had read: the manifest knows better now.
                if failed == position:
                    raise missing(Path(error.filename or self._folder)) from error
                failed = position
            else:
                return

    def ended(self, first: int, last: int, ended_us: int) -> None:
        """Record when the applying of positions ``first`` to ``last`` ended, both included; microseconds.

        It does not wait for the disk: a power cut may lose the newest records.

        Raises:
            StoreError: the disk refused.
        """
        if not 0 <= first <= last:
            raise ValueError(f"positions {first} to {last} are no range")
        self._ends.record(first, last, ended_us)

    def ends(self) -> pa.Table:
        """Return what was recorded and does not stand in compacted files: int64 columns first, last, ended_us.

        The ranges are disjoint and grow; a position belongs to the first record that covers it, and may have none.
        Call it before ``spans`` or ``files``: what is no longer here then stands in ``__known_at`` there.
        """
        records = self._ends.read()
        stands = baked(self._chain.manifest.read())
        merged = first_cover(np.concatenate([stands, records]))
        return as_table(merged[~np.isin(merged["first"], stands["first"])])

    def is_ended(self) -> bool:
        """Say whether for every position it is recorded when its applying ended."""
        covered = first_cover(np.concatenate([baked(self._chain.manifest.read()), self._ends.read()]))
        return int((covered["last"] - covered["first"] + 1).sum()) >= self.next_seq()

    def compact(self, *, keep: int = 60, target_rows: int = 1_000_000) -> CompactReport:
        """Merge batch files and small compacted files into bigger ones; what they replace stays for the grace time.

        Of two at the same time one does nothing. A kill at any moment leaves the log as it was or with some merges.

        Args:
            keep: how many of the newest batch files stay; 0 only where nobody appends.
            target_rows: how many rows a file has at most, unless one batch has more.

        Raises:
            StoreError: the disk refused, or a file is missing or damaged.
        """
        return self._compactor.compact(keep=keep, target_rows=target_rows)

    def sweep(self) -> None:
        """Remove what killed processes left and what compaction replaced, each after the grace time.

        Raises:
            StoreError: the disk refused.
        """
        self._compactor.sweep()

    def _position(self, at: int | None) -> int:
        if self._is_lost:
            raise self._lost(at)
        if self._mine is None:
            self._chain.schema()
            self._mine = self._chain.next_seq()
        if at is None or at == self._mine:
            return self._mine
        if at > self._mine:
            raise ValueError(f"position {at} would leave a hole behind {self._mine}")
        raise self._lost(at)

    def _create(self, span: FileRange, rows: pa.Table) -> None:
        temporary = self._folder / f".{uuid.uuid4().hex}.tmp"
        data = _encoded(rows)
        try:
            make_folder(self._folder)
            write_durable(temporary, data)
            os.link(temporary, span.path)
            sync_folder(self._folder)
        except FileExistsError as error:
            raise self._lost(span.first) from error
        except OSError as error:
            raise refused(span.path, error) from error
        finally:
            temporary.unlink(missing_ok=True)
        self._check_fence(span)
        noted(self._chain.inventory, span.path, span.rows)
        if self._sync_ends:
            self._ends.sync()

    def _check_fence(self, span: FileRange) -> None:
        # The name was free only because compaction had removed the file that bore it.
        if self._chain.manifest.read().end >= span.first:
            span.path.unlink(missing_ok=True)
            raise self._lost(span.first)

    def _lost(self, first: int | None) -> ConflictError:
        self._is_lost = True
        return ConflictError(
            f"log partition {self.partition!r}",
            "was written by another process",
            value=first,
            fix="open it again and go on behind its last row",
        )

    def _wanted(self, columns: Sequence[str] | None) -> pa.Schema:
        schema = self._chain.schema()
        if columns is None:
            return schema
        types = {KNOWN_AT: pa.int64()} | {field.name: field.type for field in schema}
        return pa.schema([(name, types.get(name, pa.null())) for name in columns])

    def _rows(self, first: int, last: int, schema: pa.Schema) -> Iterator[pa.Table]:
        if KNOWN_AT not in schema.names:
            for span in self.spans(first, last):
                yield from tables(span, first, last, schema)
            return
        # Before the files: what compaction drops from the ends stands in the files by then.
        ends = as_table(first_cover(self._ends.read()))
        needed = schema if SEQ in schema.names else schema.append(pa.field(SEQ, pa.int64()))
        for span in self.spans(first, last):
            for rows in tables(span, first, last, needed):
                yield with_known_at(rows, ends).select(schema.names)


def _encoded(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    # A dictionary and bounds for each column cost more than they save on a batch of some hundred rows.
    pq.write_table(rows, sink, compression="zstd", use_dictionary=False, write_statistics=[SEQ])
    return sink.getvalue()
