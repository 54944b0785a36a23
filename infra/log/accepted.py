"""The accepted log: Parquet files in a chain, each named by its first position (SEMANTICS 1.4, 4.2).

A file is written beside its place, made durable, then linked to its name: it stands whole or not
at all, and of two writers one loses. The next file starts at last + 1, so the chain can be followed
without listing the folder; ``tail.json`` only saves the steps already made.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.durable import sync_folder
from skewless.errors import ConflictError, StoreError

SEQ = "__seq"
EVENT = "__event_ts"
CREATED = "__created_ts"
INGEST = "__ingest_ts"
RUN = "__run_id"
TOMBSTONE = "__tombstone"
REJECT = "__reject"
RAW = "__raw"


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One file of the log: positions ``first`` to ``last``, both included."""

    path: Path
    first: int
    last: int


class AcceptedLog:
    """The log of one partition; ``seq`` is dense and starts at 0."""

    def __init__(self, root: Path, partition: str) -> None:
        self.partition = partition
        self._folder = root / partition
        self._segments: list[Segment] = []

    def segments(self) -> Sequence[Segment]:
        """Return all files in order, following the chain from where it was last known."""
        if not self._segments:
            self._segments = self._remembered()
        while (segment := self._at(self.next_seq(follow=False))) is not None:
            self._segments.append(segment)
        return tuple(self._segments)

    def files(self, first: int = 0) -> list[str]:
        """Return the paths of the files that hold positions from ``first`` on."""
        return [str(segment.path) for segment in self.segments() if segment.last >= first]

    def next_seq(self, *, follow: bool = True) -> int:
        """Return the position that the next row will get."""
        segments = self.segments() if follow else self._segments
        return segments[-1].last + 1 if segments else 0

    def append(self, rows: pa.Table) -> Segment:
        """Number the rows and write them durably; return their segment.

        Args:
            rows: at least one row, without ``__seq``.

        Raises:
            ConflictError: another writer took the position.
            StoreError: the disk refused.
        """
        first = self.next_seq()
        numbered = rows.append_column(SEQ, pa.array(range(first, first + rows.num_rows), pa.int64()))
        path = self._path(first)
        temporary = self._folder / f".{uuid.uuid4().hex}.tmp"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _write_durably(numbered, temporary)
            self._link(temporary, path)
            sync_folder(self._folder)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"log folder {self._folder}",
                f"cannot be written: {error}",
                fix="free disk space or rights, then run again",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        segment = Segment(path=path, first=first, last=first + rows.num_rows - 1)
        self._segments.append(segment)
        self._remember()
        return segment

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

    def _at(self, first: int) -> Segment | None:
        path = self._path(first)
        try:
            rows = pq.read_metadata(path).num_rows
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"log file {path}", f"is damaged: {error}", fix="restore it from a backup: the log is the authority"
            ) from error
        return Segment(path=path, first=first, last=first + rows - 1)

    def _remembered(self) -> list[Segment]:
        try:
            starts = json.loads((self._folder / "tail.json").read_text())
            segments = [Segment(path=self._path(first), first=first, last=last) for first, last in starts]
        except (OSError, ValueError, TypeError):
            return []
        # A folder restored from a backup may hold less than its tail says; then the chain tells.
        return segments if all(segment.path.exists() for segment in segments[-1:]) else []

    def _remember(self) -> None:
        temporary = self._folder / f".{uuid.uuid4().hex}.tail"
        # The rows are durable without it, so a disk that refuses now is the next append's trouble.
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps([[segment.first, segment.last] for segment in self._segments]))
            temporary.replace(self._folder / "tail.json")


def _write_durably(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")
    with path.open("rb") as file:
        os.fsync(file.fileno())


def count_rejected(files: Sequence[str]) -> int:
    """Return how many rows of some log files are in quarantine."""
    return sum(int(pc.sum(pc.is_valid(pq.read_table(path, columns=[REJECT])[REJECT])).as_py() or 0) for path in files)
