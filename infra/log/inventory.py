"""Which files a log must have, so that one that is missing or altered is never taken for the end (SEMANTICS 1.4).

The notes stand beside the root of the logs, in ``ROOT.files``: who loses a folder does not lose what it must hold. A
line says that a file stands, or that it is about to go::

    + 00000000000000000000.parquet 2043 1700000000000000000 100 9c56...  1f0a22b3
    - 00000000000000000000.parquet                                       7be1d0c9

A file is noted when it stands under its name, and is taken off before it is removed: a kill leaves at most a file
without a note, which is read all the same. Nothing waits for the disk; a power cut may lose the newest notes. A log of
a release before has no notes: the first one to write notes what is there, without digests.
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
from skewless.infra.storage.durable import exclusive, refused, replace_durable

_UNKNOWN = "-"
_ANY = -1
_DIGEST = "blake2b"
# Rewritten when so many lines say nothing any more; a small file is left alone.
_STALE = 4
_SMALL = 4_096


class FileEntry(NamedTuple):
    """What is known of a file.

    Args:
        size: bytes; -1: it changes, so only that it stands is known.
        mtime_ns: when it was last written, by the disk's clock.
        rows: how many rows it holds; -1: not noted.
        digest: of its bytes; ``-``: not noted.
    """

    size: int
    mtime_ns: int
    rows: int = -1
    digest: str = _UNKNOWN

    @property
    def is_exact(self) -> bool:
        """Whether its bytes were noted."""
        return self.digest != _UNKNOWN


class Inventory:
    """The notes of one log. Any process may write them; an object belongs to one thread.

    Args:
        root: of the logs, or the log's own folder.
        partition: of the log below ``root``; none: it is ``root`` itself.
    """

    def __init__(self, root: Path, partition: str = "") -> None:
        self.folder = root / partition
        self._path = noted_below(root) / f"{partition or 'all'}.list"
        self._lock = self._path.with_suffix(".lock")
        self._notes: dict[str, FileEntry] = {}
        self._read_to: tuple[int, int] = (0, 0)
        self._lines = 0
        self._newest = ""

    def notes(self) -> Mapping[str, FileEntry]:
        """Return what must be there, by name; it costs a look at one file where nothing has changed.

        Raises:
            StoreError: the notes cannot be read.
        """
        try:
            stat = self._path.stat()
            if (stat.st_ino, stat.st_size) != self._read_to:
                self._read_on()
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            raise refused(self._path, error) from error
        return self._notes

    def newest(self) -> str:
        """Return the greatest name of a file that is named by its first position; empty: none was ever noted."""
        self.notes()
        return self._newest

    def add(self, path: Path, rows: int = -1) -> None:
        """Note a file that stands under its name, and will not change any more.

        Raises:
            StoreError: the disk refused; the file stands all the same.
        """
        with self._writing():
            known = [] if self._path.exists() else _found(self.folder, path.name)
            with path.open("rb") as file:
                self._write([*known, _plus(path.name, _described(file, rows))])

    def expect(self, name: str) -> None:
        """Note a file that stands from now on, and may change; should the disk refuse, it is not missed."""
        if name not in self.notes():
            with contextlib.suppress(StoreError), self._writing():
                known = [] if self._path.exists() else _found(self.folder, name)
                self._write([*known, _plus(name, FileEntry(_ANY, 0))])

    def drop(self, names: Iterable[str]) -> None:
        """Note that files are about to be removed.

        Raises:
            StoreError: the disk refused: then they must stay.
        """
        gone = [name for name in names if name in self.notes()]
        if gone:
            with self._writing():
                self._write([f"- {name}" for name in gone])
                self._tidy()

    def check(self, path: Path) -> None:
        """See that a file is what was written: by its size and time, and where the time is another, by its digest.

        Raises:
            StoreError: it is missing, cut short or altered.
        """
        note = self.notes().get(path.name)
        try:
            stat = path.stat()
            if note is None or (stat.st_size, stat.st_mtime_ns) == (note.size, note.mtime_ns):
                return
            if stat.st_size != note.size:
                raise damaged(path, f"it has {stat.st_size} bytes, and was written with {note.size}")
            self.compare(path)
        except FileNotFoundError as error:
            raise missing(path) from error
        except OSError as error:
            raise damaged(path, str(error)) from error
        with contextlib.suppress(StoreError), self._writing():
            self._write([_plus(path.name, note._replace(mtime_ns=stat.st_mtime_ns))])

    def compare(self, path: Path) -> None:
        """See that the bytes of a file are those that were written, where that was noted; reads all of it.

        Raises:
            StoreError: it is missing or altered.
        """
        note = self.notes().get(path.name)
        try:
            with path.open("rb") as file:
                digest = _digest(file)
        except FileNotFoundError as error:
            raise missing(path) from error
        except OSError as error:
            raise damaged(path, str(error)) from error
        if note is not None and note.digest not in {_UNKNOWN, digest}:
            raise damaged(path, "its bytes are not those that were written")

    def compare_all(self, paths: Iterable[Path]) -> None:
        """See that files that are about to be merged are what was written; of one that was taken off nothing is said.

        Else what was altered would be noted as whole under another name, and the doctor could not find it any more.

        Raises:
            StoreError: one is missing or altered.
        """
        for path in paths:
            self._unless_gone(self.compare, path)

    def files(self) -> list[Path]:
        """Return the Parquet files of the folder, by name, each of them checked.

        Raises:
            StoreError: one is missing, cut short or altered.
        """
        found = {path.name: path for path in self.folder.glob("*.parquet")}
        self.refuse_missing(found)
        for name in sorted(found.keys() & self.notes().keys()):
            self._unless_gone(self.check, found[name])  # what goes meanwhile was taken off before
        return [found[name] for name in sorted(found)]

    def refuse_missing(self, names: Collection[str]) -> None:
        """Refuse a log of which files are missing that were not taken off.

        Args:
            names: of the files that were found.

        Raises:
            StoreError: one is missing.
        """
        for name in sorted(self.notes().keys() - set(names)):
            path = self.folder / name
            # It came, or went, since the folder was listed.
            if not path.exists() and name in self.notes():
                raise missing(path)

    def _unless_gone(self, see: Callable[[Path], None], path: Path) -> None:
        try:
            see(path)
        except StoreError:
            if path.exists() or path.name in self.notes():
                raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with exclusive(self._lock):
                yield
        except OSError as error:
            raise refused(self._path, error) from error

    def _write(self, lines: Iterable[str]) -> None:
        with self._path.open("ab+") as file:
            text = "".join(map(_summed, lines)).encode()
            if file.tell() and not _ends_whole(file):
                text = b"\n" + text
            file.write(text)

    def _tidy(self) -> None:
        notes = self.notes()
        if self._lines > max(_STALE * len(notes), _SMALL):
            replace_durable(self._path, "".join(_summed(_plus(*each)) for each in notes.items()).encode())

    def _read_on(self) -> None:
        with self._path.open("rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_ino != self._read_to[0] or stat.st_size < self._read_to[1]:
                self._forget()
            file.seek(self._read_to[1])
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.split(b"\n"):
            self._take(line)
        self._read_to = (stat.st_ino, self._read_to[1] + len(whole))

    def _take(self, line: bytes) -> None:
        body, _, total = line.rpartition(b" ")
        if total != b"%08x" % zlib.crc32(body) or not body:
            return  # torn by a power cut, or altered: its file counts as one without a note
        self._lines += 1
        sign, name, *rest = body.decode().split(" ")
        if sign == "-":
            self._notes.pop(name, None)
        else:
            size, mtime, rows, digest = rest
            self._newest = max(self._newest, name) if name[0].isdigit() else self._newest
            self._notes[name] = FileEntry(int(size), int(mtime), int(rows), digest)

    def _forget(self) -> None:
        self._notes, self._read_to, self._lines, self._newest = {}, (0, 0), 0, ""


def noted(inventory: Inventory, path: Path, rows: int = -1) -> None:
    """Note a file that was made durable; should the disk refuse, it is read without a note."""
    with contextlib.suppress(StoreError):
        inventory.add(path, rows)


def noted_below(root: Path) -> Path:
    """Return the folder of the notes about the logs below a root."""
    return root.with_name(f"{root.name}.files")


def noted_partitions(root: Path, below: str = "") -> list[str]:
    """Return the partitions below a root of which there are notes, sorted.

    Args:
        below: only those whose name begins with this folder.
    """
    notes = noted_below(root)
    return sorted(str(path.relative_to(notes).with_suffix("")) for path in (notes / below).rglob("*.list"))


def missing(path: Path) -> StoreError:
    """Return the error for a file that the log must have but the disk does not."""
    return StoreError(f"log file {path}", "is missing", fix=_FIX)


def damaged(path: Path, why: object) -> StoreError:
    """Return the error for a file that stands but is not what was written, or cannot be read."""
    return StoreError(f"log file {path}", f"is damaged: {why}", fix=_FIX)


_FIX = "restore it from a backup: the log is the authority"


def _found(folder: Path, but: str) -> list[str]:
    lines = []
    for path in sorted(folder.glob("*.parquet")):
        with contextlib.suppress(FileNotFoundError):
            if path.name != but:
                stat = path.stat()
                lines.append(_plus(path.name, FileEntry(stat.st_size, stat.st_mtime_ns)))
    return lines


def _described(file: BufferedIOBase, rows: int) -> FileEntry:
    stat = os.fstat(file.fileno())
    return FileEntry(stat.st_size, stat.st_mtime_ns, rows, _digest(file))


def _digest(file: BufferedIOBase) -> str:
    return file_digest(file, _DIGEST).hexdigest()[:32]


def _plus(name: str, note: FileEntry) -> str:
    return f"+ {name} {note.size} {note.mtime_ns} {note.rows} {note.digest}"


def _summed(line: str) -> str:
    return f"{line} {zlib.crc32(line.encode()):08x}\n"


def _ends_whole(file: BufferedIOBase) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
