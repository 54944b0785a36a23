"""Local copies of objects, of which the least recently used are deleted first."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from zlib import crc32

from skewless.infra.platform.storage.durable import (
    hold_lock,
    make_folder,
    open_private,
    remove_at_end,
    seal_file,
    translate_disk_errors,
)
from skewless.infra.platform.storage.objects import StoredObject, digest_file
from skewless.infra.platform.storage.quick_sum import quick_sum

# From here on is the modification time of a file whose digest was compared, by nanoseconds that depend on its sum: a
# write changes the time, and rot the sum.
_VERIFIED_NS, _SUMS = 946_684_800 * 10**9, 1 << 30
_TOUCH_S = 60.0  # the time of the last use is at most this old
_IN_USE_S = 3_600.0  # another process may be reading a file that was used so recently
_SHARE = 32  # files are deleted each time that this part of the limit was added
_LOCK, _COUNT = ".lock", ".added"


class FileCache:
    """A folder of copies that all processes of a machine may use; a copy is named by its digest.

    Args:
        folder: created at the first copy.
        limit: bytes of all copies; files of the last hour may exceed it.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._known: dict[Path, int] = {}  # times of files whose sum this process has compared

    def find(self, stored: StoredObject) -> Path | None:
        """Return the copy of an object, None if there is none or its bytes differ; it counts as used now.

        Its bytes are looked at once in a process, and if its time has changed.
        """
        path = self.path(stored)
        try:
            stat = path.stat()
            is_verified = self._is_verified(path, stat.st_mtime_ns)
            if stat.st_size != stored.size or not (is_verified or digest_file(path) == stored.digest):
                return None
            if not is_verified or time.time() - stat.st_atime > _TOUCH_S:
                # With the lock, because another process may be about to delete it.
                with hold_lock(self._folder / _LOCK):
                    _mark_used(path, stat.st_mtime_ns if is_verified else _verified_ns(path))
        except OSError:
            return None
        return path

    @contextmanager
    def add(self, stored: StoredObject) -> Iterator[Path]:
        """Yield a new path for a verified copy; the copy gets its name at the end of the block.

        Raises:
            StoreError: the disk failed; nothing is left behind.
        """
        path = self.path(stored)
        unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        with remove_at_end(unfinished) as temporary, translate_disk_errors(path):
            make_folder(self._folder)
            yield temporary
            seal_file(temporary)
            _mark_used(temporary, _verified_ns(temporary))
            temporary.replace(path)
            self._count(stored.size)

    def delete(self, stored: StoredObject) -> None:
        """Delete the copy of an object, if there is one.

        Raises:
            StoreError: the disk failed.
        """
        path = self.path(stored)
        with translate_disk_errors(path):
            path.unlink(missing_ok=True)

    def delete_others(self, list_digests: Callable[[], Collection[str]], *, dry_run: bool = False) -> int:
        """Delete copies without one of these digests that were not used for an hour; return how many.

        Raises:
            StoreError: the disk failed.
        """
        if not self._folder.is_dir():
            return 0
        # Files first: a copy that is added meanwhile may be of an object that the list does not have yet.
        files, known = list(self._list_files()), list_digests()
        unknown = [path for used_s, _, path in files if path.stem not in known and time.time() - used_s > _IN_USE_S]
        with translate_disk_errors(self._folder):
            for path in [] if dry_run else unknown:
                path.unlink(missing_ok=True)
        return len(unknown)

    def path(self, stored: StoredObject) -> Path:
        """Return where the copy of an object is, or will be."""
        return self._folder / (stored.digest + PurePath(stored.name).suffix)

    def _is_verified(self, path: Path, modified_ns: int) -> bool:
        if self._known.get(path) == modified_ns:
            return True
        if not 0 <= modified_ns - _VERIFIED_NS < _SUMS or modified_ns != _verified_ns(path):
            return False
        self._known[path] = modified_ns
        return True

    def _count(self, size: int) -> None:
        """Count what was added, and delete files now and then: a look at all files takes long."""
        count = self._folder / _COUNT
        with hold_lock(self._folder / _LOCK):
            with suppress(FileNotFoundError, ValueError):
                size += int(count.read_bytes())
            if size * _SHARE >= self._limit:
                self._evict()
                size = 0
            with open_private(count) as file:
                file.truncate(0)
                file.write(str(size).encode())

    def _evict(self) -> None:
        """Delete the least recently used files until there is room for what is added before the next time."""
        files = sorted(self._list_files())
        excess = sum(size for _, size, _ in files) - self._limit + self._limit // _SHARE
        for used_s, size, path in files:
            if excess <= 0 or time.time() - used_s < _IN_USE_S:
                break
            path.unlink(missing_ok=True)
            excess -= size

    def _list_files(self) -> Iterator[tuple[float, int, Path]]:
        """Yield the time of the last use, the size and the path of each file, those of killed processes, too."""
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # a temporary file of another process
                stat = path.stat()
                if path.name not in {_LOCK, _COUNT}:
                    yield max(stat.st_atime, stat.st_mtime), stat.st_size, path


def _verified_ns(path: Path) -> int:
    return _VERIFIED_NS + crc32(quick_sum(path).to_bytes(8, "little")) % _SUMS


def _mark_used(path: Path, modified_ns: int) -> None:
    os.utime(path, ns=(time.time_ns(), modified_ns))
