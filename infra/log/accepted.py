"""The accepted log: Parquet files in a chain, each named by its first position (SEMANTICS 1.4, 4.2).

A file is written under a temporary name, made durable, then linked to its final name. So a file under a final name is
complete, and if two writers race, one fails. The next file starts at last + 1, so readers follow the chain without
listing the folder. The inventory saves opening each file, and distinguishes the end of the chain from a missing file.
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
from skewless.infra.log.inventory import Inventory, add_to_inventory, corrupt_file_error, missing_file_error
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

# Readers skip row groups by their statistics, and hold one row group in memory at a time.
_GROUP_ROWS = 100_000


class StagedRows:
    """Numbered rows in a temporary file that are not part of the log before ``commit_rows``.

    Args:
        path: a temporary path in the folder of the log, so that the final name can be a hard link.
        first: position of its first row.
    """

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = first
        self.rows = 0
        self._open_writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        """Number rows and write them; all batches must have one schema, without ``__seq``.

        Raises:
            StoreError: the file cannot be written.
        """
        start = self.first + self.rows
        numbers = np.arange(start, start + rows.num_rows, dtype=np.int64)
        numbered = rows.append_column(SEQ, pa.array(numbers))
        with _translate_errors(self.path.parent):
            if self._open_writer is None:
                self._open_writer = _open_writer(self.path, numbered.schema)
            self._open_writer.write_table(numbered, row_group_size=_GROUP_ROWS)
        self.rows += rows.num_rows

    def close(self) -> None:
        """Close the file; its rows are readable then, but not yet durable."""
        if self._open_writer is not None:
            with _translate_errors(self.path.parent):
                self._open_writer.close()
            self._open_writer = None


class AcceptedLog:
    """The log of one partition; ``seq`` starts at 0 and has no gaps."""

    def __init__(self, root: Path, partition: str) -> None:
        self.partition = partition
        self._folder = root / partition
        self._inventory = Inventory(root, partition)
        self._segments: list[FileRange] = []

    def segments(self) -> Sequence[FileRange]:
        """Return all files in order; only files after the last known one are looked up.

        Raises:
            StoreError: a file is missing, truncated or altered.
        """
        while (segment := self._find_file(self.next_seq(follow=False))) is not None:
            self._segments.append(segment)
        return tuple(self._segments)

    def files(self, first: int = 0) -> list[str]:
        """Return the paths of the files with positions from ``first`` on.

        Raises:
            StoreError: a file is missing, truncated or altered.
        """
        return [str(segment.path) for segment in self.segments() if segment.last >= first]

    def next_seq(self, *, follow: bool = True) -> int:
        """Return the position of the next row; with ``follow`` false, as far as known without reading the disk."""
        segments = self.segments() if follow else self._segments
        return segments[-1].last + 1 if segments else 0

    @contextlib.contextmanager
    def stage_rows(self) -> Iterator[StagedRows]:
        """Create a temporary file for the next rows; it is removed at the end unless ``commit_rows`` has linked it.

        Raises:
            StoreError: the file cannot be written.
        """
        staged = StagedRows(self._folder / f".{uuid.uuid4().hex}.tmp", self.next_seq())
        with _translate_errors(self._folder):
            make_folder(self._folder)
        try:
            yield staged
        finally:
            with contextlib.suppress(StoreError):
                staged.close()
            with contextlib.suppress(OSError):
                staged.path.unlink()

    def commit_rows(self, staged: StagedRows) -> FileRange:
        """Make staged rows, at least one, durable and part of the log; return their file.

        Raises:
            ConflictError: another writer has appended at this position.
            StoreError: the file cannot be written.
        """
        path = self._file_path(staged.first)
        staged.close()
        with _translate_errors(self._folder):
            sync_file(staged.path)
            # A link fails if the name exists, so of two writers only one succeeds.
            self._link(staged.path, path)
            sync_folder(self._folder)
        add_to_inventory(self._inventory, path, staged.rows)
        segment = FileRange(path=path, first=staged.first, last=staged.first + staged.rows - 1)
        self._segments.append(segment)
        return segment

    def append(self, rows: pa.Table) -> FileRange:
        """Number rows, at least one, and append them durably; return their file.

        Raises:
            ConflictError: another writer has appended at this position.
            StoreError: the file cannot be written.
        """
        with self.stage_rows() as staged:
            staged.write(rows)
            return self.commit_rows(staged)

    def sweep(self) -> None:
        """Remove temporary files of killed writers; call it only while no other process writes this partition."""
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

    def _file_path(self, first: int) -> Path:
        return self._folder / f"{first:020d}.parquet"

    def _find_file(self, first: int) -> FileRange | None:
        path = self._file_path(first)
        entries = self._inventory.entries()
        entry = entries.get(path.name)
        if entry is None and not path.exists():
            # Files are written in order and noted after they exist. So a later note proves that this file is missing.
            if path.name > self._inventory.latest_name():
                return None
            if not path.exists():
                raise missing_file_error(path)
        self._inventory.check(path)
        rows = _count_rows(path) if entry is None or entry.rows < 0 else entry.rows
        return FileRange(path=path, first=first, last=first + rows - 1)


def _count_rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise corrupt_file_error(path, error) from error


def _open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    text = [field.name for field in schema if not pa.types.is_primitive(field.type)]
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=text)


@contextlib.contextmanager
def _translate_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"log folder {folder}",
            f"cannot be written: {error}",
            fix="free disk space, or give write access, then run again",
        ) from error


def due_sql(delay_us: int) -> str:
    """Return SQL for the time at which a log row is due, int64 microseconds; null for a row without a time.

    A row is due when it was created, but not before its event time: a forecast waits until then. Without a created
    time, the event time plus the declared delay is used.
    """
    return f"greatest({EVENT}, coalesce({CREATED}, {EVENT} + {delay_us}))"


def rejected_reasons(files: Sequence[str]) -> dict[str, int]:
    """Return the number of quarantined rows in log files, by reason; skips row groups without any."""
    counts: Counter[str] = Counter()
    for path in files:
        with pq.ParquetFile(path) as file:
            column = file.schema_arrow.get_field_index(REJECT)
            groups = [i for i in range(file.num_row_groups) if not _is_all_null(file.metadata.row_group(i), column)]
            reasons = file.read_row_groups(groups, columns=[REJECT])[REJECT] if groups else None
            # drop_null imports Arrow's compute functions: a log without rejected rows is read without them.
            if reasons is not None and reasons.null_count < len(reasons):
                counts.update(reasons.drop_null().to_pylist())
    return dict(counts)


def count_rejected(files: Sequence[str]) -> int:
    """Return the number of quarantined rows in log files."""
    return sum(rejected_reasons(files).values())


def _is_all_null(group: pq.RowGroupMetaData, column: int) -> bool:
    statistics = group.column(column).statistics
    return bool(statistics is not None and statistics.has_null_count and statistics.null_count == group.num_rows)
