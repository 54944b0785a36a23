"""Writes that survive a kill and a power cut: what stands under its final name is whole."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import structlog

from skewless.contract.errors import StoreError

_OWNER_ONLY = 0o700
_SLOW_LOCK_S = 10.0


def make_folder(path: Path) -> None:
    """Make a folder of the state and those above it that are missing, for their owner alone whatever the umask.

    What is there stays as it is.

    Raises:
        OSError: the disk refused.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        with suppress(FileExistsError):  # somebody was first
            folder.mkdir(mode=_OWNER_ONLY)
            folder.chmod(_OWNER_ONLY)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


@contextmanager
def exclusive(lock_file: Path) -> Iterator[None]:
    """Hold an advisory lock on this machine; the kernel frees it when its holder dies.

    It keeps housekeeping (sweeping leftovers) out of others' way, and lets the scheduler's ledger compare a token and
    write in one step. Where its holder is stopped and not dead (SIGSTOP, a debugger), whoever wants it waits until
    that process goes on or is killed, and logs that it does.
    """
    make_folder(lock_file.parent)
    with lock_file.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _wait(handle)
        yield


def _wait(lock: BinaryIO) -> None:
    """Wait for a lock; log it once where that takes long."""
    fix = "`lslocks` names the process that holds it: let it go on (`kill -CONT`), or kill it"
    log = structlog.get_logger().warning
    slow = threading.Timer(_SLOW_LOCK_S, log, ("waiting_for_a_lock",), {"path": lock.name, "fix": fix})
    slow.daemon = True
    slow.start()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        slow.cancel()


@contextmanager
def alone(folder: Path, name: str = ".compact.lock") -> Iterator[bool]:
    """Lend whether nobody else on this machine holds a lock of a folder; the kernel frees it when its holder dies.

    Raises:
        StoreError: the disk refused.
    """
    lock = folder / name
    try:
        make_folder(folder)
        opened = lock.open("ab")
    except OSError as error:
        raise refused(lock, error) from error
    with opened as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def write_durable(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a new file and wait until the disk has it.

    Args:
        path: where no file stands.
        data: what the file will hold.
        mode: who may open it; None: as the umask says.

    Raises:
        StoreError: the disk refused; nothing is left behind.
    """
    try:
        with path.open("xb") as handle:
            if mode is not None:
                os.fchmod(handle.fileno(), mode)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise refused(path, error) from error


def sync_file(path: Path) -> None:
    """Wait until the disk has what a file holds."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refused(path: Path, error: OSError) -> StoreError:
    """Return the error that says which path the disk refused, and why."""
    return StoreError(
        f"file {path.name!r}", "cannot be written", value=cause(error), fix=f"make room or access below {path.parent}"
    )


def cause(error: Exception) -> str:
    """Return why the disk refused, without the path that the error names."""
    number = error.errno if isinstance(error, OSError) else None
    return type(error).__name__ if number is None else os.strerror(number)


def create_durable(path: Path, data: bytes, mode: int | None = None) -> None:
    """Put a file where none stands, whole or not at all, and wait until the disk has it.

    Args:
        path: its place; the folder is made.
        data: what the file will hold.
        mode: who may open it; None: as the umask says.

    Raises:
        FileExistsError: somebody was first.
        StoreError: the disk refused; nothing is left behind.
    """
    try:
        make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        write_durable(temporary, data, mode)
        try:
            os.link(temporary, path)
            for folder in (path.parent, path.parent.parent):
                sync_folder(folder)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise refused(path, error) from error


def replace_durable(path: Path, data: bytes, mode: int | None = None) -> None:
    """Put a file in the place of another, or of none, and wait until the disk has it; readers see one or the other.

    Args:
        path: its place; the folder is made.
        data: what the file will hold.
        mode: who may open it; None: as the umask says.

    Raises:
        StoreError: the disk refused; the file is as it was.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    write_durable(temporary, data, mode)
    try:
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise refused(path, error) from error
