"""A file lock that the kernel releases when its holder dies, even by SIGKILL."""

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
    """A shared or exclusive flock on ``path``, held until ``release`` or the end of the process.

    The file stays empty or holds a note for people, and is never removed. Started programs do not inherit the lock,
    but a forked copy of the process does.
    """

    def __init__(self, path: Path) -> None:
        """Set the path; nothing is opened or locked yet."""
        self.path = path
        self._fd: int | None = None

    def acquire(self, *, shared: bool = False, timeout_s: float = 0.0) -> bool:
        """Acquire the lock; return whether that succeeded within ``timeout_s`` seconds.

        Raises:
            PlaceError: the file cannot be opened or locked.
        """
        flags = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
        fd = self._open_file()
        deadline = time.monotonic() + timeout_s
        while not self._try_lock(fd, flags):
            if time.monotonic() >= deadline:
                os.close(fd)
                return False
            time.sleep(_STEP_S)
        # The new descriptor already holds the lock, so the old one can be dropped without a gap.
        self.release()
        self._fd = fd
        return True

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def is_held(self) -> bool:
        """Return whether a process holds the lock exclusively."""
        probe = FileLock(self.path)
        # A shared lock succeeds unless another process holds an exclusive one.
        free = probe.acquire(shared=True)
        probe.release()
        return not free

    def text(self) -> str:
        """Return the holder's note in the file, for people."""
        try:
            return self.path.read_text().strip()
        except OSError:
            return ""

    def _open_file(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable_error(self.path, error) from error

    def _try_lock(self, fd: int, flags: int) -> bool:
        try:
            fcntl.flock(fd, flags)
        except BlockingIOError:
            return False
        except OSError as error:
            os.close(fd)
            raise _unusable_error(self.path, error) from error
        return True


def _unusable_error(path: Path, error: OSError) -> PlaceError:
    return PlaceError(
        f"lock file {path}",
        f"cannot be used: {error.strerror}",
        fix="put the state folder on a local disk you may write",
    )
