"""The manifest of an event log: lists the compacted files with its older positions (SEMANTICS 4.2).

It is one small JSON file that is replaced atomically. Readers use it instead of listing the folder, and follow the
chain of batch files from its end.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from skewless.contract.errors import StoreError
from skewless.infra.storage.durable import disk_error, sync_folder, write_durable

NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class FileRange:
    """One file of the log: positions ``first`` to ``last``, both included."""

    path: Path
    first: int
    last: int

    @property
    def rows(self) -> int:
        """Number of rows in the file."""
        return self.last - self.first + 1


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Positions ``first`` to ``last`` of compacted files whose ``__known_at`` is null."""

    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class MergedRange:
    """Positions ``first`` to ``last`` were merged at ``at_us``; the merged files may still have readers.

    Args:
        at_us: wall-clock time, microseconds.
    """

    first: int
    last: int
    at_us: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The compacted part of a log, from position 0 without holes.

    Args:
        generation: increases by one with each replacement; 0: not written yet.
        spans: the compacted files, in order.
        gaps: disjoint, ascending, not adjacent.
        retired: merged ranges, oldest first.
    """

    generation: int = 0
    spans: tuple[FileRange, ...] = ()
    gaps: tuple[Gap, ...] = ()
    retired: tuple[MergedRange, ...] = ()

    @property
    def end(self) -> int:
        """Last position; -1 if it is empty."""
        return self.spans[-1].last if self.spans else -1


class ManifestFile:
    """The manifest in the folder of a log; cached until the file changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._manifest = Manifest()
        self._signature: tuple[int, int, int] | None = None
        self._is_new = False

    def read(self) -> Manifest:
        """Return the current manifest; the same object as before if the file has not changed.

        Raises:
            StoreError: the file is corrupt or cannot be read.
        """
        try:
            if self._signature != _signature(self._path.stat()):
                self._load()
        except FileNotFoundError:
            self._check_new()
        except OSError as error:
            raise self._corrupt_error(error) from error
        return self._manifest

    def replace(self, old: Manifest, new: Manifest) -> bool:
        """Replace ``old`` durably; return False, without a change, if it is not the current manifest.

        Raises:
            StoreError: the file cannot be written.
        """
        if self.read() != old:
            return False
        temporary = self._folder / f".{uuid.uuid4().hex}.tmp"
        write_durable(temporary, _encode(new))
        try:
            temporary.replace(self._path)
            sync_folder(self._folder)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise disk_error(self._path, error) from error
        return True

    def _load(self) -> None:
        with self._path.open("rb") as file:
            signature, text = _signature(os.fstat(file.fileno())), file.read()
        try:
            self._manifest = _decode(text, self._folder)
        except (ValueError, TypeError, KeyError) as error:
            raise self._corrupt_error(error) from error
        self._signature = signature

    def _check_new(self) -> None:
        # Without this check, a log that lost its manifest would start again at position 0.
        if self._manifest.generation or not (self._is_new or self._is_first()):
            raise StoreError(
                f"log manifest {self._path}",
                "is missing",
                fix="restore it from a backup; the log is the source of truth",
            )
        self._is_new = True

    def _is_first(self) -> bool:
        # A compaction that was killed before it wrote a manifest leaves its file next to the first batch.
        return batch_path(self._folder, 0).exists() or not any(self._folder.glob("c*-*.parquet"))

    def _corrupt_error(self, error: Exception) -> StoreError:
        return StoreError(
            f"log manifest {self._path}", f"is corrupt: {error}", fix="restore it from a backup or make it readable"
        )


def batch_path(folder: Path, first: int) -> Path:
    """Return the path of the batch file that begins at a position."""
    return folder / f"{first:020d}.parquet"


def compacted_path(folder: Path, first: int, last: int) -> Path:
    """Return the path of the compacted file of a range."""
    return folder / f"c{first:020d}-{last:020d}.parquet"


def join_gaps(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """Return ascending, disjoint gaps with adjacent ones joined.

    >>> join_gaps([Gap(first=0, last=1), Gap(first=2, last=3), Gap(first=5, last=5)])
    (Gap(first=0, last=3), Gap(first=5, last=5))
    """
    result: list[Gap] = []
    for gap in gaps:
        if result and gap.first == result[-1].last + 1:
            result[-1] = Gap(first=result[-1].first, last=gap.last)
        else:
            result.append(gap)
    return tuple(result)


def _checksum(body: Mapping[str, object]) -> int:
    return zlib.crc32(json.dumps(body).encode())


def _signature(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _encode(manifest: Manifest) -> bytes:
    body = {
        "generation": manifest.generation,
        "spans": [[span.first, span.last] for span in manifest.spans],
        "gaps": [[gap.first, gap.last] for gap in manifest.gaps],
        "retired": [[item.first, item.last, item.at_us] for item in manifest.retired],
    }
    return json.dumps(body | {"sum": _checksum(body)}).encode()


def _decode(text: bytes, folder: Path) -> Manifest:
    body = json.loads(text)
    # Manifests of older releases have no checksum.
    if body.pop("sum", None) not in {None, _checksum(body)}:
        raise ValueError("its checksum is wrong")
    return Manifest(
        generation=int(body["generation"]),
        spans=tuple(
            FileRange(path=compacted_path(folder, first, last), first=first, last=last) for first, last in body["spans"]
        ),
        gaps=tuple(Gap(first=first, last=last) for first, last in body["gaps"]),
        retired=tuple(MergedRange(first=first, last=last, at_us=at_us) for first, last, at_us in body["retired"]),
    )
