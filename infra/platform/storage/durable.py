"""Writes files that survive a kill and a power cut: a file under its final name is complete."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from skewless.contract.errors import StoreError
from skewless.infra.platform.telemetry.logger import EventLogger

_OWNER_ONLY, _OWNER_ONLY_FILE = 0o700, 0o600
_SLOW_LOCK_S = 10.0


def make_folder(path: Path) -> None:
    """Create a folder of the state and its missing parents, accessible to the owner only, whatever the umask.

    Existing folders stay unchanged.

    Raises:
        OSError: a folder cannot be created.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        with suppress(FileExistsError):  # another process was first
            folder.mkdir(mode=_OWNER_ONLY)
            # The umask reduces the mode of mkdir, and not that of chmod.
            folder.chmod(_OWNER_ONLY)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


@contextmanager
def hold_lock(lock_file: Path) -> Iterator[None]:
    """Hold an advisory lock on this machine; the kernel releases it when its holder dies.

    It keeps the removal of leftovers apart from writers, and lets the scheduler's ledger compare a token and write
    atomically. If the holder is stopped but not dead (SIGSTOP, a debugger), callers wait until that process continues
    or is killed, and log that they wait.
    """
    make_folder(lock_file.parent)
    # The file is never deleted: a process could hold the lock of a deleted file while another locks a new one.
    with open_private(lock_file) as handle:
        lock_handle(handle)
        yield


def open_private(path: Path) -> BinaryIO:
    """Open a file of the state to append to it; a new file is its owner's alone."""
    return open(path, "ab", opener=partial(os.open, mode=_OWNER_ONLY_FILE))


def lock_handle(handle: BinaryIO, mode: int = fcntl.LOCK_EX) -> None:
    """Lock an open file until it is closed; log it once if the wait is long.

    Args:
        handle: of the file.
        mode: ``fcntl.LOCK_EX``, or ``fcntl.LOCK_SH``.
    """
    try:
        fcntl.flock(handle, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        fix = "find its holder with `lslocks`; continue it with `kill -CONT`, or kill it"
        with log_long_wait(path=handle.name, fix=fix):
            fcntl.flock(handle, mode)


@contextmanager
def log_long_wait(**fields: str) -> Iterator[None]:
    """Log once if the block, which waits for a lock, takes more than 10 seconds."""
    slow = threading.Timer(_SLOW_LOCK_S, lambda: EventLogger().warning("waiting_for_a_lock", **fields))
    slow.daemon = True
    slow.start()
    try:
        yield
    finally:
        slow.cancel()


def write_durable(path: Path, data: bytes, mode: int = _OWNER_ONLY_FILE) -> None:
    """Write a new file and wait until it is on disk.

    Args:
        path: must not exist.
        data: content of the file.
        mode: permissions, whatever the umask.

    Raises:
        StoreError: the file cannot be written; nothing is left behind.
    """
    try:
        with path.open("xb") as handle:
            os.fchmod(handle.fileno(), mode)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        if not isinstance(error, FileExistsError):  # a file that was there is not ours to remove
            path.unlink(missing_ok=True)
        raise disk_error(path, error) from error


@contextmanager
def remove_at_end(path: Path) -> Iterator[Path]:
    """Yield the path of an unfinished file; if it is still there at the end of the block, it is removed."""
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on disk."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def seal_file(path: Path) -> None:
    """Make a file of the state its owner's alone, and wait until its content is on disk."""
    path.chmod(_OWNER_ONLY_FILE)
    sync_file(path)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_durable(staging: Path, target: Path) -> None:
    """Rename a file or a folder: first all of it is on disk, and at the end its new name, too; raises OSError."""
    for path in (staging, *staging.rglob("*")):
        (sync_folder if path.is_dir() else sync_file)(path)
    os.rename(staging, target)  # noqa: PTH104 - Path.rename would first need a check
    sync_folder(target.parent)


def disk_error(path: Path, error: OSError) -> StoreError:
    """Return the error for a file that cannot be written, with the reason."""
    return StoreError(
        f"file {path.name!r}",
        "cannot be written",
        value=error_text(error),
        fix=f"make room, or give write access, below {path.parent}",
    )


@contextmanager
def translate_disk_errors(path: Path) -> Iterator[None]:
    """Raise an OSError of the block as ``disk_error``."""
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from error


def error_text(error: Exception) -> str:
    """Return the reason of an OS error without the path that its message contains."""
    number = error.errno if isinstance(error, OSError) else None
    return type(error).__name__ if number is None else os.strerror(number)


def create_durable(path: Path, data: bytes, mode: int = _OWNER_ONLY_FILE) -> None:
    """Create a file atomically where none exists, and wait until it is on disk.

    Args:
        path: its final path; the folder is created.
        data: content of the file.
        mode: permissions, whatever the umask.

    Raises:
        FileExistsError: the file exists already.
        StoreError: the file cannot be written; nothing is left behind.
    """
    with _stage(path, data, mode) as temporary:
        # Unlike a rename, a link never replaces an existing file.
        os.link(temporary, path)
        # The name of the parent may be new, too.
        for folder in (path.parent, path.parent.parent):
            sync_folder(folder)


def replace_durable(path: Path, data: bytes, mode: int = _OWNER_ONLY_FILE) -> None:
    """Create or replace a file atomically, and wait until it is on disk; readers see the old or the new file.

    Args:
        path: its final path; the folder is created.
        data: content of the file.
        mode: permissions, whatever the umask.

    Raises:
        StoreError: the file cannot be written; the old file is unchanged.
    """
    with _stage(path, data, mode) as temporary:
        temporary.replace(path)
        sync_folder(path.parent)


@contextmanager
def _stage(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Yield a durable file next to a path, which the block moves or links there."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        make_folder(path.parent)
        write_durable(temporary, data, mode)
        yield temporary
    # A subclass of OSError, but the answer that callers wait for, and not an error of the disk.
    except FileExistsError:
        raise
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
