"""The address of a private server, a Unix socket or a loopback port with a password, and the locks of its folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from skewless.contract.errors import PlaceError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

SOCKET_NAME = "server.sock"
# macOS allows 103 bytes for the path of a socket, Linux 107.
_MAX_PATH_BYTES = 100
_STEP_S = 0.005


@dataclass(frozen=True, kw_only=True)
class PrivateAddress:
    """Either ``file`` (a socket, relative to the data folder, or absolute) or ``port`` with ``password``."""

    file: str | None = None
    port: int = 0
    password: str = ""

    @classmethod
    def choose(cls, folder: Path, *, use_port: bool = False) -> PrivateAddress:
        """Return a free address: a socket in ``folder``, otherwise in a private temporary folder, otherwise a port."""
        if use_port:
            return cls(port=_free_port(), password=secrets.token_urlsafe(24))
        if _can_listen(folder / SOCKET_NAME):
            return cls(file=SOCKET_NAME)
        # The path of a socket is limited to about 100 bytes, which a deep state folder exceeds.
        for root in (None, "/tmp"):  # noqa: S108 - only the root of a folder of our own, made with mode 700
            path = Path(tempfile.mkdtemp(prefix="skewless-", dir=root)) / SOCKET_NAME
            if _can_listen(path):
                return cls(file=str(path))
            path.parent.rmdir()
        return cls.choose(folder, use_port=True)

    @classmethod
    def load(cls, record: Path) -> PrivateAddress:
        """Return the address in the file ``record``; the default socket if the file is missing or unreadable."""
        try:
            return cls(**json.loads(record.read_text()))
        except (OSError, ValueError, TypeError):
            return cls(file=SOCKET_NAME)

    def save(self, record: Path) -> None:
        """Write the address to the file ``record``, atomically."""
        write_private(record, json.dumps(asdict(self)))

    def url(self, folder: Path) -> str:
        """Return the address as a redis-py URL (the path of a socket is percent-encoded)."""
        if self.file is not None:
            return f"unix://{quote(str(folder / self.file))}"
        return f"redis://:{self.password}@127.0.0.1:{self.port}"

    def config(self) -> list[str]:
        """Return the lines of server configuration that make it listen on this address only."""
        if self.file is not None:
            return ["port 0", f"unixsocket {_quote_path(self.file)}", "unixsocketperm 700"]
        return [f"port {self.port}", "bind 127.0.0.1", f"requirepass {self.password}"]

    def remove(self, folder: Path) -> None:
        """Remove the socket file and its temporary folder."""
        if self.file is None:
            return
        path = folder / self.file
        path.unlink(missing_ok=True)
        if path.parent != folder:
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def write_private(path: Path, text: str) -> None:
    """Replace the file ``path`` atomically; only its owner may read it."""
    draft = path.with_name(path.name + ".new")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StoreError(
            f"file {path}",
            f"cannot be written: {error.strerror}",
            fix="make room and make the state folder writable",
        ) from error


def _can_listen(path: Path) -> bool:
    if len(os.fsencode(path)) >= _MAX_PATH_BYTES:
        return False
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _quote_path(path: str) -> str:
    return '"' + "".join(chr(b) if chr(b).isalnum() or b in b"/._-" else f"\\x{b:02x}" for b in os.fsencode(path)) + '"'


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
        try:
            with contextlib.ExitStack() as stack:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, fd)
                deadline = time.monotonic() + timeout_s
                while not _try_lock(fd, flags):
                    if time.monotonic() >= deadline:
                        return False
                    time.sleep(_STEP_S)
                stack.pop_all()
        except OSError as error:
            raise PlaceError(
                f"lock file {self.path}",
                f"cannot be used: {error.strerror}",
                fix="put the state folder on a local disk you may write",
            ) from error
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


def _try_lock(fd: int, flags: int) -> bool:
    try:
        fcntl.flock(fd, flags)
    except BlockingIOError:
        return False
    return True
