"""A lock on a file that the kernel drops when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

from skewless.contract.errors import PlaceError

if TYPE_CHECKING:
    from pathlib import Path

_STEP_S = 0.005


class FileLock:
    """One hold on ``path`` by flock: shared or exclusive, kept until ``release`` or the end of the process.

    The file itself means nothing and is never removed. Holds do not pass to programs that are started,
    but they do to a forked copy of the process.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is opened or locked yet."""
        self.path = path
        self._fd: int | None = None

    def acquire(self, *, shared: bool = False, timeout_s: float = 0.0) -> bool:
        """Take the lock; say whether it was had within ``timeout_s`` seconds.

        Raises:
            PlaceError: the folder cannot hold lock files.
        """
        flags = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
        fd = self._open()
        deadline = time.monotonic() + timeout_s
        while not self._try(fd, flags):
            if time.monotonic() >= deadline:
                os.close(fd)
                return False
            time.sleep(_STEP_S)
        self.release()
        self._fd = fd
        return True

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def held_by_anyone(self) -> bool:
        """Say whether some process holds the lock in a way that excludes others."""
        probe = FileLock(self.path)
        free = probe.acquire(shared=True)
        probe.release()
        return not free

    def text(self) -> str:
        """Return what the holder wrote into the file, for people."""
        try:
            return self.path.read_text().strip()
        except OSError:
            return ""

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def _try(self, fd: int, flags: int) -> bool:
        try:
            fcntl.flock(fd, flags)
        except BlockingIOError:
            return False
        except OSError as error:
            os.close(fd)
            raise _unusable(self.path, error) from error
        return True


def _unusable(path: Path, error: OSError) -> PlaceError:
    return PlaceError(
        f"lock file {path}",
        f"cannot be used: {error.strerror}",
        fix="put the state folder on a local disk you may write",
    )
