"""The storage of everything immutable: objects that are written once, in a folder or in a cloud."""

from __future__ import annotations

import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import NamedTuple

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage.durable import (
    disk_error,
    make_folder,
    seal_file,
    sync_folder,
    translate_disk_errors,
)
from skewless.infra.platform.storage.quick_sum import SummedFiles, quick_sum

STAGING = "staging"  # folder of unfinished files
PROBES = f"{STAGING}/doctor-"  # objects by which `skewless doctor --deep` tries the storage
_CHANGED = "its content has changed since it was written"
_FIX = "restore it from a backup; the log is the source of truth"


class StoredObject(NamedTuple):
    """An object as its writer has recorded it.

    Args:
        name: unique in the storage, with ``/`` between its parts; never used again.
        size: bytes.
        stamp: the storage's mark of this content, which a change by others would change.
        digest: of the bytes, see ``digest_bytes``.
    """

    name: str
    size: int
    stamp: str
    digest: str


class ListedObject(NamedTuple):
    """An object as the storage lists it; ``modified_us`` is by the storage's clock, microseconds."""

    name: str
    size: int
    modified_us: int


class ObjectStorage(ABC):
    """Stores objects; any thread and any process may use it.

    Args:
        root: folder of this machine, in which the files of objects can be linked.
    """

    is_known = False  # whether it was compared with the database; see ``shared_facts``

    def __init__(self, root: Path) -> None:
        self._root = root

    @abstractmethod
    def put(self, name: str, data: bytes | memoryview) -> StoredObject:
        """Store bytes durably under a new name.

        Raises:
            StoreError: the storage refused the write.
        """

    @abstractmethod
    def put_file(self, name: str, path: Path) -> StoredObject:
        """Store a complete file durably under a new name; the file itself stays, or is moved.

        If the name exists, it was stored by an earlier, interrupted call with the same file.

        Raises:
            StoreError: the storage refused the write.
        """

    @abstractmethod
    def describe(self, name: str) -> StoredObject:
        """Return an object that nobody has recorded, as it is now; reads all of it.

        Raises:
            StoreError: the object is missing, or cannot be read.
        """

    @abstractmethod
    def local_path(self, stored: StoredObject) -> Path:
        """Return a local file with the object's bytes, which the caller must not change.

        Raises:
            StoreError: the object is missing, or was altered.
        """

    def local_paths(self, objects: Sequence[StoredObject]) -> list[Path]:
        """Return a local file for each object, like ``local_path``."""
        return [self.local_path(stored) for stored in objects]

    @abstractmethod
    def verify(self, stored: StoredObject) -> None:
        """Compare the bytes in the storage with the digest; reads all of them.

        Raises:
            StoreError: the object is missing, or was altered.
        """

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; a missing one is fine.

        Raises:
            StoreError: the storage refused it.
        """

    def delete_copy(self, stored: StoredObject) -> None:  # noqa: B027 - only a cloud has copies
        """Delete this machine's copy of a deleted object; the object itself is not a copy.

        Raises:
            StoreError: the disk refused it.
        """

    def delete_unknown_copies(
        self,
        list_digests: Callable[[], Collection[str]],  # noqa: ARG002 - as above
        *,
        dry_run: bool = False,  # noqa: ARG002 - as above
    ) -> int:
        """Delete this machine's copies of objects that no log has any more; return how many.

        Args:
            list_digests: returns the digests of the objects of all logs.

        Raises:
            StoreError: the disk refused it.
        """
        return 0

    @abstractmethod
    def list_objects(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects whose names begin with a folder, in any order."""

    def staging_path(self) -> Path:
        """Return a new path for a file that is going to be put; its folder exists.

        Raises:
            StoreError: the folder cannot be created.
        """
        folder = self._root / STAGING
        with translate_disk_errors(folder):
            make_folder(folder)
        return folder / uuid.uuid4().hex


class FolderStorage(ObjectStorage):
    """Objects as files below a folder, the root; all machines that use it see the same folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._synced: set[Path] = set()
        self._summed = SummedFiles()

    def put(self, name: str, data: bytes | memoryview) -> StoredObject:
        """Write the file under its name: nobody looks for the name before the caller has recorded it."""
        path = self._root / name
        try:
            self._make_folder(path.parent)
            path.write_bytes(data)
            return self._complete(name, path, digest_bytes(data))
        except OSError as error:
            with suppress(OSError):
                path.unlink()
            raise disk_error(path, error) from error

    def put_file(self, name: str, path: Path) -> StoredObject:
        """Link the file under its name."""
        target = self._root / name
        with translate_disk_errors(target):
            self._make_folder(target.parent)
            if not target.exists():
                target.hardlink_to(path)
            os.utime(target)  # by its time, `list_objects` tells whether its append may still run
            return self._complete(name, target, digest_file(target))

    def describe(self, name: str) -> StoredObject:
        """Return size, time and digest of the file."""
        path = self._root / name
        with _reading(path):
            return StoredObject(name, path.stat().st_size, _stamp(path), digest_file(path))

    def local_path(self, stored: StoredObject) -> Path:
        """Return the file itself, after a look at its size and time, and once in a process at its bytes."""
        path = self._root / stored.name
        written_ns, _, known_sum = stored.stamp.partition("-")
        with _reading(path):
            stat = path.stat()
            if stat.st_size != stored.size:
                raise corrupt_error(path, f"it has {stat.st_size} bytes, and had {stored.size} when it was written")
            if str(stat.st_mtime_ns) != written_ns:
                self.verify(stored)
            elif not self._summed.has(path, int(known_sum, 16)):
                raise corrupt_error(path, _CHANGED)
        return path

    def verify(self, stored: StoredObject) -> None:
        """Read the file and compare its digest."""
        path = self._root / stored.name
        with _reading(path):
            digest = digest_file(path)
        if digest != stored.digest:
            raise corrupt_error(path, _CHANGED)

    def delete(self, names: Iterable[str]) -> None:
        """Remove the files."""
        for name in names:
            with translate_disk_errors(self._root / name):
                (self._root / name).unlink(missing_ok=True)

    def list_objects(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the files below a folder."""
        for path in sorted((self._root / prefix).rglob("*")):
            if path.is_file():
                stat = path.stat()
                yield ListedObject(str(path.relative_to(self._root)), stat.st_size, stat.st_mtime_ns // 1_000)

    def _make_folder(self, folder: Path) -> None:
        """Create a folder; its name, and those of its parents, survive a power cut, too."""
        make_folder(folder)
        if folder not in self._synced:
            for parent in folder.relative_to(self._root).parents:
                sync_folder(self._root / parent)
            self._synced.add(folder)

    def _complete(self, name: str, path: Path, digest: str) -> StoredObject:
        seal_file(path)
        sync_folder(path.parent)
        return StoredObject(name, path.stat().st_size, _stamp(path), digest)


def _stamp(path: Path) -> str:
    """Return the time and the sum of a file: what tells cheaply that it was changed, and that it has rotted."""
    return f"{path.stat().st_mtime_ns}-{quick_sum(path):x}"


def find_probes(storage: ObjectStorage, before_us: int) -> list[str]:
    """Return the objects that a killed ``skewless doctor --deep`` left before a time, by the storage's clock."""
    listed = storage.list_objects(STAGING)
    return [item.name for item in listed if item.name.startswith(PROBES) and item.modified_us < before_us]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise missing_error(path) from error
    except OSError as error:
        raise corrupt_error(path, error.strerror) from error


def digest_bytes(data: bytes | memoryview) -> str:
    """Return the digest of an object: BLAKE2b of 128 bits, in hex."""
    return digest_chunks([data])


def digest_chunks(chunks: Iterable[bytes | memoryview]) -> str:
    """Return the digest of the bytes that some chunks have together."""
    digest = blake2b()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()[:32]


def digest_file(path: Path) -> str:
    """Return the digest of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file_digest(file, "blake2b").hexdigest()[:32]


class DamagedObjectError(StoreError):
    """An object is missing or altered: a retry does not help."""


def missing_error(name: object) -> DamagedObjectError:
    """Return the error for an object that is recorded but does not exist."""
    return DamagedObjectError(f"log file {name}", "is missing", fix=_FIX)


def corrupt_error(name: object, reason: object) -> DamagedObjectError:
    """Return the error for an object that has changed, or cannot be read."""
    return DamagedObjectError(f"log file {name}", f"is corrupt: {reason}", fix=_FIX)
