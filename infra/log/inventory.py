"""The inventory of a log: the files that must exist, so that a missing file is not taken for the end (SEMANTICS 1.4).

The inventory is next to the root of the logs, in ``ROOT.files``, so that it survives the loss of a log folder. A line
adds a file, or removes it before it is deleted::

    + 00000000000000000000.parquet 2043 1700000000000000000 100 9c56...  1f0a22b3
    - 00000000000000000000.parquet                                       7be1d0c9

A file is added after it exists under its name, and removed before it is deleted. So a kill leaves at most a file
without an entry, which is still read. Lines are not synced; a power cut may lose the latest ones. Logs of older
releases have no inventory: the first writer adds the existing files, without digests.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from hashlib import file_digest
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

from skewless.contract.errors import StoreError
from skewless.infra.storage.durable import disk_error, hold_lock, replace_durable

_UNKNOWN = "-"
_ANY = -1
_DIGEST = "blake2b"
# The file is rewritten when this many times its entries are obsolete lines, unless it is small.
_STALE = 4
_SMALL = 4_096


class FileEntry(NamedTuple):
    """The recorded properties of a file.

    Args:
        size: bytes; -1: the file changes, so only its existence is recorded.
        mtime_ns: modification time, by the disk's clock.
        rows: number of rows; -1: not recorded.
        digest: of its bytes; ``-``: not recorded.
    """

    size: int
    mtime_ns: int
    rows: int = -1
    digest: str = _UNKNOWN

    @property
    def is_exact(self) -> bool:
        """Whether the digest was recorded."""
        return self.digest != _UNKNOWN


class Inventory:
    """The inventory of one log. Any process may write it; an object belongs to one thread.

    Args:
        root: folder of all logs, or the log's own folder.
        partition: of the log below ``root``; empty: the log is in ``root`` itself.
    """

    def __init__(self, root: Path, partition: str = "") -> None:
        self.folder = root / partition
        self._path = inventory_folder(root) / f"{partition or 'all'}.list"
        self._lock = self._path.with_suffix(".lock")
        self._entries: dict[str, FileEntry] = {}
        self._read_to: tuple[int, int] = (0, 0)
        self._lines = 0
        self._latest_name = ""

    def entries(self) -> Mapping[str, FileEntry]:
        """Return the entries by file name; costs one stat call if nothing has changed.

        Raises:
            StoreError: the inventory cannot be read.
        """
        try:
            stat = self._path.stat()
            if (stat.st_ino, stat.st_size) != self._read_to:
                self._read_new_lines()
        except FileNotFoundError:
            self._reset()
        except OSError as error:
            raise disk_error(self._path, error) from error
        return self._entries

    def latest_name(self) -> str:
        """Return the greatest recorded name of a file named by its first position; empty if there is none."""
        self.entries()
        return self._latest_name

    def add(self, path: Path, rows: int = -1) -> None:
        """Add a file that exists and will not change.

        Raises:
            StoreError: the inventory cannot be written; the file itself is not affected.
        """
        with self._hold_write_lock():
            existing_lines = [] if self._path.exists() else _list_files(self.folder, path.name)
            with path.open("rb") as file:
                self._append_lines([*existing_lines, _encode_entry(path.name, _describe(file, rows))])

    def expect(self, name: str) -> None:
        """Add a file that exists and may change; if that fails, its loss would not be noticed."""
        if name not in self.entries():
            with contextlib.suppress(StoreError), self._hold_write_lock():
                existing_lines = [] if self._path.exists() else _list_files(self.folder, name)
                self._append_lines([*existing_lines, _encode_entry(name, FileEntry(_ANY, 0))])

    def remove_entries(self, names: Iterable[str]) -> None:
        """Remove the entries of files that are about to be deleted.

        Raises:
            StoreError: the inventory cannot be written, so the files must stay.
        """
        removed_names = [name for name in names if name in self.entries()]
        if removed_names:
            with self._hold_write_lock():
                self._append_lines([f"- {name}" for name in removed_names])
                self._compact()

    def check(self, path: Path) -> None:
        """Check that a file is unchanged: by size and time, and if the time differs, by digest.

        Raises:
            StoreError: it is missing, truncated or altered.
        """
        entry = self.entries().get(path.name)
        try:
            stat = path.stat()
            if entry is None or (stat.st_size, stat.st_mtime_ns) == (entry.size, entry.mtime_ns):
                return
            if stat.st_size != entry.size:
                raise corrupt_file_error(path, f"it has {stat.st_size} bytes instead of {entry.size}")
            self.verify(path)
        except FileNotFoundError as error:
            raise missing_file_error(path) from error
        except OSError as error:
            raise corrupt_file_error(path, str(error)) from error
        with contextlib.suppress(StoreError), self._hold_write_lock():
            self._append_lines([_encode_entry(path.name, entry._replace(mtime_ns=stat.st_mtime_ns))])

    def verify(self, path: Path) -> None:
        """Check the digest of a file, if it was recorded; reads the complete file.

        Raises:
            StoreError: it is missing or altered.
        """
        entry = self.entries().get(path.name)
        try:
            with path.open("rb") as file:
                digest = _digest(file)
        except FileNotFoundError as error:
            raise missing_file_error(path) from error
        except OSError as error:
            raise corrupt_file_error(path, str(error)) from error
        if entry is not None and entry.digest not in {_UNKNOWN, digest}:
            raise corrupt_file_error(path, "its content has changed since it was written")

    def verify_all(self, paths: Iterable[Path]) -> None:
        """Check the digests of files before they are merged; skips files without an entry.

        Otherwise a merge would copy altered rows into a file with a new digest, and the doctor could not find them.

        Raises:
            StoreError: a file is missing or altered.
        """
        for path in paths:
            self._run_unless_removed(self.verify, path)

    def files(self) -> list[Path]:
        """Return the Parquet files of the folder by name, each of them checked.

        Raises:
            StoreError: a file is missing, truncated or altered.
        """
        paths = {path.name: path for path in self.folder.glob("*.parquet")}
        self.check_missing(paths)
        for name in sorted(paths.keys() & self.entries().keys()):
            self._run_unless_removed(self.check, paths[name])  # a file that is deleted now has lost its entry before
        return [paths[name] for name in sorted(paths)]

    def check_missing(self, names: Collection[str]) -> None:
        """Raise an error if the inventory has a file that does not exist.

        Args:
            names: of the existing files.

        Raises:
            StoreError: a file is missing.
        """
        for name in sorted(self.entries().keys() - set(names)):
            path = self.folder / name
            # The file or its entry may have changed since the folder was listed.
            if not path.exists() and name in self.entries():
                raise missing_file_error(path)

    def _run_unless_removed(self, check: Callable[[Path], None], path: Path) -> None:
        try:
            check(path)
        except StoreError:
            if path.exists() or path.name in self.entries():
                raise

    @contextlib.contextmanager
    def _hold_write_lock(self) -> Iterator[None]:
        try:
            with hold_lock(self._lock):
                yield
        except OSError as error:
            raise disk_error(self._path, error) from error

    def _append_lines(self, lines: Iterable[str]) -> None:
        with self._path.open("ab+") as file:
            text = "".join(map(_add_checksum, lines)).encode()
            if file.tell() and not _ends_with_newline(file):
                # A torn last line must not swallow the first new one.
                text = b"\n" + text
            file.write(text)

    def _compact(self) -> None:
        entries = self.entries()
        if self._lines > max(_STALE * len(entries), _SMALL):
            replace_durable(
                self._path, "".join(_add_checksum(_encode_entry(*each)) for each in entries.items()).encode()
            )

    def _read_new_lines(self) -> None:
        with self._path.open("rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_ino != self._read_to[0] or stat.st_size < self._read_to[1]:
                self._reset()
            file.seek(self._read_to[1])
            data = file.read()
        complete_lines = data[: data.rfind(b"\n") + 1]
        for line in complete_lines.split(b"\n"):
            self._apply_line(line)
        self._read_to = (stat.st_ino, self._read_to[1] + len(complete_lines))

    def _apply_line(self, line: bytes) -> None:
        body, _, total = line.rpartition(b" ")
        if total != b"%08x" % zlib.crc32(body) or not body:
            return  # torn by a power cut, or altered: the file counts as one without an entry
        self._lines += 1
        sign, name, *values = body.decode().split(" ")
        if sign == "-":
            self._entries.pop(name, None)
        else:
            size, mtime, rows, digest = values
            self._latest_name = max(self._latest_name, name) if name[0].isdigit() else self._latest_name
            self._entries[name] = FileEntry(int(size), int(mtime), int(rows), digest)

    def _reset(self) -> None:
        self._entries, self._read_to, self._lines, self._latest_name = {}, (0, 0), 0, ""


def add_to_inventory(inventory: Inventory, path: Path, rows: int = -1) -> None:
    """Add a durable file to the inventory; if that fails, the file is read without an entry."""
    with contextlib.suppress(StoreError):
        inventory.add(path, rows)


def inventory_folder(root: Path) -> Path:
    """Return the folder with the inventories of the logs below a root."""
    return root.with_name(f"{root.name}.files")


def list_recorded_partitions(root: Path, below: str = "") -> list[str]:
    """Return the partitions below a root that have an inventory, sorted.

    Args:
        root: folder of all logs.
        below: only partitions below this folder.
    """
    entries = inventory_folder(root)
    return sorted(str(path.relative_to(entries).with_suffix("")) for path in (entries / below).rglob("*.list"))


def missing_file_error(path: Path) -> StoreError:
    """Return the error for a file that is in the inventory but not on disk."""
    return StoreError(f"log file {path}", "is missing", fix=_FIX)


def corrupt_file_error(path: Path, reason: object) -> StoreError:
    """Return the error for a file that exists but has changed or cannot be read."""
    return StoreError(f"log file {path}", f"is corrupt: {reason}", fix=_FIX)


_FIX = "restore it from a backup; the log is the source of truth"


def _list_files(folder: Path, skipped_name: str) -> list[str]:
    lines = []
    for path in sorted(folder.glob("*.parquet")):
        with contextlib.suppress(FileNotFoundError):
            if path.name != skipped_name:
                stat = path.stat()
                lines.append(_encode_entry(path.name, FileEntry(stat.st_size, stat.st_mtime_ns)))
    return lines


def _describe(file: BufferedIOBase, rows: int) -> FileEntry:
    stat = os.fstat(file.fileno())
    return FileEntry(stat.st_size, stat.st_mtime_ns, rows, _digest(file))


def _digest(file: BufferedIOBase) -> str:
    return file_digest(file, _DIGEST).hexdigest()[:32]


def _encode_entry(name: str, entry: FileEntry) -> str:
    return f"+ {name} {entry.size} {entry.mtime_ns} {entry.rows} {entry.digest}"


def _add_checksum(line: str) -> str:
    return f"{line} {zlib.crc32(line.encode()):08x}\n"


def _ends_with_newline(file: BufferedIOBase) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
