"""The folder of a dataset: Parquet parts, and a manifest with the dataset's identity and its finished parts."""

from __future__ import annotations

import fcntl
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import ConflictError, PlaceError, StoreError
from skewless.infra.platform.storage.durable import sync_file, sync_folder
from skewless.infra.platform.storage.names import check_folder_name

MANIFEST = "_dataset.json"  # readers of a folder of Parquet files skip names that begin so
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class DatasetPart:
    """A finished file of a dataset.

    Args:
        rows: its number of rows.
        status: per view, reads by status.
    """

    name: str
    rows: int
    status: Mapping[str, Mapping[str, int]]


class DatasetParts(ABC):
    """The finished parts of one dataset, in a place that survives a kill.

    Attributes:
        identity: all inputs that determine the rows; empty: it has not been started.
        parts: the finished ones.
        complete: whether these are all.
    """

    def __init__(self) -> None:
        self.identity: dict[str, Any] = {}
        self.parts: list[DatasetPart] = []
        self.complete = False

    def open(self, identity: Mapping[str, Any]) -> None:
        """Start a dataset, or continue it; no other writer may have it open.

        Args:
            identity: all inputs that determine the rows, plain values.

        Raises:
            ConflictError: these are the parts of another dataset.
            StoreError: the place refused the write.
        """
        # Through JSON, as the stored identity: a tuple, for example, would never equal the list that was read.
        expected = json.loads(json.dumps({"format": FORMAT, **identity}))
        if self.identity and self.identity != expected:
            different = sorted(key for key in expected if self.identity.get(key) != expected[key])
            raise self._conflict(", ".join(different))
        self.identity = expected
        self._begin()

    @abstractmethod
    def add(self, table: pa.Table, status: Mapping[str, Mapping[str, int]]) -> None:
        """Write the next part durably.

        Raises:
            StoreError: the place refused the write; earlier parts stay.
        """

    def finish(self) -> None:
        """Mark the dataset as complete.

        Raises:
            StoreError: the place refused the write.
        """
        self.complete = True
        self._save()

    @property
    def rows(self) -> int:
        """Return the number of written rows."""
        return sum(part.rows for part in self.parts)

    @abstractmethod
    def _begin(self) -> None:
        """Remove what a killed writer has left unfinished, and save the identity."""

    @abstractmethod
    def _save(self) -> None:
        """Save identity, finished parts, and whether they are all."""

    @abstractmethod
    def _conflict(self, different: str) -> ConflictError:
        """Return the error of a place that has another dataset."""


class DatasetFolder(DatasetParts):
    """The folder of one dataset.

    A part is written to a temporary file, made durable and renamed; then the manifest names it. So all parts in the
    manifest are complete, and an interrupted run continues after them.

    Args:
        path: a folder that is new, empty, or has this dataset.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def read_manifest(self) -> None:
        """Read the manifest, if there is one; nothing is changed.

        Raises:
            PlaceError: the folder has other contents, or cannot be read.
        """
        check_folder_name(self.path)
        manifest = self.path / MANIFEST
        if manifest.is_file():
            try:
                body = json.loads(manifest.read_text(encoding="utf-8"))
                self.parts = [DatasetPart(**part) for part in body["parts"]]
                self.identity, self.complete = dict(body["identity"]), bool(body["complete"])
            except (ValueError, KeyError, TypeError) as error:
                raise self._error(f"has a {MANIFEST} that skewless did not write") from error
            missing = [part.name for part in self.parts if not (self.path / part.name).is_file()]
            if missing:
                raise self._error(f"lacks {missing[0]}, which its {MANIFEST} names")
        # A run that was killed before its first manifest leaves only temporary files.
        elif self.path.exists() and (not self.path.is_dir() or set(self.path.iterdir()) - self._leftovers()):
            raise self._error("is not an empty folder")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder against other writers; the kernel releases the lock if the process dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        # The folder itself is locked: a lock file would be foreign content, which the check of the folder rejects.
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def add(self, table: pa.Table, status: Mapping[str, Mapping[str, int]]) -> None:
        """Write the next part to its own file."""
        name = f"part-{len(self.parts):06d}.parquet"
        temporary = self.path / f".{name}.tmp"
        try:
            pq.write_table(table, temporary, compression="zstd")
            sync_file(temporary)
            temporary.replace(self.path / name)
            sync_folder(self.path)
            # Only now, when the rename is durable: a manifest must never name a part that a power cut can remove.
            self.parts.append(DatasetPart(name=name, rows=table.num_rows, status=status))
            self._write_manifest()
        except (OSError, pa.ArrowException) as error:
            temporary.unlink(missing_ok=True)
            raise self._write_error(error) from error

    def _begin(self) -> None:
        try:
            for leftover in self._leftovers():
                leftover.unlink()
        except OSError as error:
            raise self._write_error(error) from error
        self._save()

    def _save(self) -> None:
        try:
            self._write_manifest()
        except OSError as error:
            raise self._write_error(error) from error

    def _conflict(self, different: str) -> ConflictError:
        return ConflictError(
            f"folder {self.path}",
            f"has another dataset, which differs in {different}",
            fix="name an empty folder, or remove this one",
        )

    def _leftovers(self) -> set[Path]:
        """Return the temporary files of killed runs."""
        return {path for name in (MANIFEST, "part-*") for path in self.path.glob(f".{name}.tmp")}

    def _write_manifest(self) -> None:
        body = {"identity": self.identity, "complete": self.complete, "parts": [asdict(part) for part in self.parts]}
        temporary = self.path / f".{MANIFEST}.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(body, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / MANIFEST)
        sync_folder(self.path)

    def _error(self, problem: str) -> PlaceError:
        return PlaceError(f"folder {self.path}", problem, fix="name a new or empty folder, or remove this one")

    def _write_error(self, error: Exception) -> StoreError:
        return StoreError(
            f"folder {self.path}",
            f"cannot be written: {error}",
            fix="free disk space or change the folder's rights, then run it again",
        )


def merge_status(parts: Sequence[DatasetPart]) -> dict[str, dict[str, int]]:
    """Return per view the number of reads by status, over all parts.

    >>> merge_status([DatasetPart(name="a", rows=1, status={"v": {"PRESENT": 1}})] * 2)
    {'v': {'PRESENT': 2}}
    """
    total: dict[str, dict[str, int]] = {}
    for part in parts:
        for view, counts in part.status.items():
            view_total = total.setdefault(view, {})
            for name, count in counts.items():
                view_total[name] = view_total.get(name, 0) + count
    return total
