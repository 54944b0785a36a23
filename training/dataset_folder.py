"""A dataset on disk: Parquet parts, and a manifest that says what they are and which of them stand."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import ConflictError, PlaceError, StoreError
from skewless.infra.storage.durable import sync_file, sync_folder

MANIFEST = "dataset.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class DatasetPart:
    """One finished file.

    Args:
        rows: how many rows it holds.
        status: per view, reads by status.
    """

    name: str
    rows: int
    status: Mapping[str, Mapping[str, int]]


class DatasetFolder:
    """The folder of one dataset.

    A part is written beside its place, made durable and renamed; then the manifest names it. So what
    the manifest names is whole, and an interrupted run goes on after it.

    Args:
        path: a folder that is new, empty, or holds this dataset.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity: dict[str, Any] = {}
        self.parts: list[DatasetPart] = []
        self.complete = False

    def look(self) -> None:
        """Read the manifest, if there is one; nothing is changed.

        Raises:
            PlaceError: the folder holds other things, or cannot be read.
        """
        manifest = self.path / MANIFEST
        if manifest.is_file():
            try:
                body = json.loads(manifest.read_text(encoding="utf-8"))
                self.parts = [DatasetPart(**part) for part in body["parts"]]
                self.identity, self.complete = dict(body["identity"]), bool(body["complete"])
            except (ValueError, KeyError, TypeError) as error:
                raise self._foreign(f"holds a {MANIFEST} that no run of ours wrote") from error
            lost = [part.name for part in self.parts if not (self.path / part.name).is_file()]
            if lost:
                raise self._foreign(f"lacks {lost[0]}, which its {MANIFEST} names")
        elif self.path.exists() and (not self.path.is_dir() or set(self.path.iterdir()) - self._leftovers()):
            raise self._foreign("is not an empty folder")

    def open(self, identity: Mapping[str, Any]) -> None:
        """Begin a dataset, or go on with it; call ``look`` first, within ``locked``.

        Args:
            identity: what the rows follow from, plain values.

        Raises:
            ConflictError: the folder holds another dataset.
            StoreError: the disk refused.
        """
        wanted = json.loads(json.dumps({"format": FORMAT, **identity}))
        if self.identity and self.identity != wanted:
            other = sorted(key for key in wanted if self.identity.get(key) != wanted[key])
            raise ConflictError(
                f"folder {self.path}",
                f"holds another dataset: it differs in {', '.join(other)}",
                fix="name an empty folder, or remove this one",
            )
        self.identity = wanted
        try:
            for left in self._leftovers():
                left.unlink()
            self._write_manifest()
        except OSError as error:
            raise self._refused(error) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else write the folder for a while; the kernel frees it when its holder dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def add(self, table: pa.Table, status: Mapping[str, Mapping[str, int]]) -> None:
        """Write the next part durably.

        Raises:
            StoreError: the disk refused; the parts before stand.
        """
        name = f"part-{len(self.parts):06d}.parquet"
        temporary = self.path / f".{name}.tmp"
        try:
            pq.write_table(table, temporary, compression="zstd")
            sync_file(temporary)
            temporary.replace(self.path / name)
            sync_folder(self.path)
            self.parts.append(DatasetPart(name=name, rows=table.num_rows, status=status))
            self._write_manifest()
        except (OSError, pa.ArrowException) as error:
            temporary.unlink(missing_ok=True)
            raise self._refused(error) from error

    def finish(self) -> None:
        """Say in the manifest that nothing is missing."""
        self.complete = True
        try:
            self._write_manifest()
        except OSError as error:
            raise self._refused(error) from error

    @property
    def rows(self) -> int:
        """Return how many rows stand."""
        return sum(part.rows for part in self.parts)

    def _leftovers(self) -> set[Path]:
        """Return what a killed run had not finished writing."""
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

    def _foreign(self, problem: str) -> PlaceError:
        return PlaceError(f"folder {self.path}", problem, fix="name a new or empty folder, or remove this one")

    def _refused(self, error: Exception) -> StoreError:
        return StoreError(
            f"folder {self.path}", f"cannot be written: {error}", fix="free disk space or rights, then run it again"
        )


def merge_status(parts: Sequence[DatasetPart]) -> dict[str, dict[str, int]]:
    """Return per view how many reads had each status, over all parts.

    >>> merge_status([DatasetPart(name="a", rows=1, status={"v": {"PRESENT": 1}})] * 2)
    {'v': {'PRESENT': 2}}
    """
    total: dict[str, dict[str, int]] = {}
    for part in parts:
        for view, counts in part.status.items():
            into = total.setdefault(view, {})
            for name, count in counts.items():
                into[name] = into.get(name, 0) + count
    return total
