"""The accepted log: Parquet files in a chain, each named by its first position (SEMANTICS 1.4, 4.2).

A file is written beside its place, made durable, then linked to its name: it stands whole or not
at all, and of two writers one loses. The next file starts at last + 1, so the chain can be followed
without listing the folder; the notes about the files save opening each, and tell the end from a file that is missing.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.log.inventory import Inventory, damaged, missing, noted
from skewless.infra.log.manifest import FileRange
from skewless.infra.storage.durable import make_folder, sync_file, sync_folder

SEQ = "__seq"
EVENT = "__event_ts"
CREATED = "__created_ts"
INGEST = "__ingest_ts"
RUN = "__run_id"
TOMBSTONE = "__tombstone"
REJECT = "__reject"
RAW = "__raw"

# Row groups are what a reader skips, and what it holds at a time.
_GROUP_ROWS = 100_000


class StagedRows:
    """Rows that are about to stand in a log: numbered and on disk, but no part of it before they are adopted.

    Args:
        path: where to write; in the folder of the log, so that a link can give it its name.
        first: position of its first row.
    """

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = first
        self.rows = 0
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        """Number some rows and write them; all batches have one schema, without ``__seq``.

        Raises:
            StoreError: the disk refused.
        """
        start = self.first + self.rows
        numbers = np.arange(start, start + rows.num_rows, dtype=np.int64)
        numbered = rows.append_column(SEQ, pa.array(numbers))
        with _translated(self.path.parent):
            if self._writer is None:
                self._writer = _writer(self.path, numbered.schema)
            self._writer.write_table(numbered, row_group_size=_GROUP_ROWS)
        self.rows += rows.num_rows

    def close(self) -> None:
        """End the file; what was written is readable then, but not yet durable."""
        if self._writer is not None:
            with _translated(self.path.parent):
                self._writer.close()
            self._writer = None


class AcceptedLog:
    """The log of one partition; ``seq`` is dense and starts at 0."""

    def __init__(self, root: Path, partition: str) -> None:
        self.partition = partition
        self._folder = root / partition
        self._inventory = Inventory(root, partition)
        self._segments: list[FileRange] = []

    def segments(self) -> Sequence[FileRange]:
        """Return all files in order, following the chain from where it was last known.

        Raises:
            StoreError: a file is missing, cut short or altered.
        """
        while (segment := self._at(self.next_seq(follow=False))) is not None:
            self._segments.append(segment)
        return tuple(self._segments)

    def files(self, first: int = 0) -> list[str]:
        """Return the paths of the files that hold positions from ``first`` on.

        Raises:
            StoreError: a file is missing, cut short or altered.
        """
        return [str(segment.path) for segment in self.segments() if segment.last >= first]

    def next_seq(self, *, follow: bool = True) -> int:
        """Return the position that the next row will get."""
        segments = self.segments() if follow else self._segments
        return segments[-1].last + 1 if segments else 0

    @contextlib.contextmanager
    def draft(self) -> Iterator[StagedRows]:
        """Lend a file for the rows that come next; it is removed unless it was adopted.

        Raises:
            StoreError: the disk refused.
        """
        draft = StagedRows(self._folder / f".{uuid.uuid4().hex}.tmp", self.next_seq())
        with _translated(self._folder):
            make_folder(self._folder)
        try:
            yield draft
        finally:
            with contextlib.suppress(StoreError):
                draft.close()
            with contextlib.suppress(OSError):
                draft.path.unlink()

    def adopt(self, draft: StagedRows) -> FileRange:
        """Make a draft of at least one row durable and part of the log; return its segment.

        Raises:
            ConflictError: another writer took the position.
            StoreError: the disk refused.
        """
        path = self._path(draft.first)
        draft.close()
        with _translated(self._folder):
            sync_file(draft.path)
            self._link(draft.path, path)
            sync_folder(self._folder)
        noted(self._inventory, path, draft.rows)
        segment = FileRange(path=path, first=draft.first, last=draft.first + draft.rows - 1)
        self._segments.append(segment)
        return segment

    def append(self, rows: pa.Table) -> FileRange:
        """Number the rows, at least one, and write them durably; return their segment.

        Raises:
            ConflictError: another writer took the position.
            StoreError: the disk refused.
        """
        with self.draft() as draft:
            draft.write(rows)
            return self.adopt(draft)

    def sweep(self) -> None:
        """Remove what killed writers left; call only while nobody else writes this partition."""
        for path in self._folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def _link(self, temporary: Path, path: Path) -> None:
        try:
            os.link(temporary, path)
        except FileExistsError as error:
            raise ConflictError(
                f"log partition {self.partition!r}",
                "was written by another process",
                value=path.name,
                fix="run it again",
            ) from error

    def _path(self, first: int) -> Path:
        return self._folder / f"{first:020d}.parquet"

    def _at(self, first: int) -> FileRange | None:
        path = self._path(first)
        notes = self._inventory.notes()
        note = notes.get(path.name)
        if note is None and not path.exists():
            # A file stands before it is noted, so one behind a hole was written after what was there.
            if path.name > self._inventory.newest():
                return None
            if not path.exists():
                raise missing(path)
        self._inventory.check(path)
        rows = _count(path) if note is None or note.rows < 0 else note.rows
        return FileRange(path=path, first=first, last=first + rows - 1)


def _count(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    text = [field.name for field in schema if not pa.types.is_primitive(field.type)]
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=text)


@contextlib.contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"log folder {folder}", f"cannot be written: {error}", fix="free disk space or rights, then run again"
        ) from error


def due_sql(delay_us: int) -> str:
    """Return SQL for when a log row is due, int64 microseconds; null for a row without a time.

    That is when it was written, and not before it happens: a forecast waits for its event time. Without a created
    time it is the event time plus the declared delay.
    """
    return f"greatest({EVENT}, coalesce({CREATED}, {EVENT} + {delay_us}))"


def rejected_reasons(files: Sequence[str]) -> dict[str, int]:
    """Return how many rows of some log files are in quarantine, by reason; groups without any are not read."""
    counts: Counter[str] = Counter()
    for path in files:
        with pq.ParquetFile(path) as file:
            column = file.schema_arrow.get_field_index(REJECT)
            groups = [i for i in range(file.num_row_groups) if not _all_null(file.metadata.row_group(i), column)]
            if groups:
                counts.update(file.read_row_groups(groups, columns=[REJECT])[REJECT].drop_null().to_pylist())
    return dict(counts)


def count_rejected(files: Sequence[str]) -> int:
    """Return how many rows of some log files are in quarantine."""
    return sum(rejected_reasons(files).values())


def _all_null(group: pq.RowGroupMetaData, column: int) -> bool:
    statistics = group.column(column).statistics
    return bool(statistics is not None and statistics.has_null_count and statistics.null_count == group.num_rows)
