"""The process that runs a private server while it has users. Started by path, stdlib only.

::

    user process ──holds shared──> users.lock      (kernel drops it when the user dies, even by kill -9)
    watcher      ──holds─────────> watcher.lock    (one watcher per folder)
       └─ server ──holds─────────> server.lock     (inherited: true while any server writes this data)

The watcher leaves the process group of its starter. Four times a second it tries users.lock. When there has been no
user for the grace time, it stops the server with SIGTERM, which syncs the append-only file. If the server crashes while
it has users, the watcher restarts it on the same address. If the watcher itself is killed, Linux sends the server
SIGTERM; on other systems the next ``ensure()`` finds the orphan by server.lock and replaces it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_PROBE_S = 0.25
_STOP_S = 10.0
_CRASH_LOOP_S = 0.5
_PR_SET_PDEATHSIG = 1


class Watcher:
    """Runs the server in ``folder`` until SIGTERM, or until it has had no user for ``grace_s``."""

    def __init__(self, folder: Path, binary: str, grace_s: float) -> None:
        """Prepare to run ``binary`` in ``folder``, which must be the working directory."""
        self._folder = folder
        self._binary = binary
        self._grace_s = grace_s
        self._users = os.open("users.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._stop_requested = False
        self._started = 0.0

    def run(self) -> int:
        """Run the server until it stops; return the exit code (1: the server could not run)."""
        wakeup_read = self._listen_to_signals()
        server = self._start()
        idle_since: float | None = None
        while True:
            # Signals wake it at once (`set_wakeup_fd`), so a stop does not wait for the next probe.
            select.select([wakeup_read], [], [], _PROBE_S)
            _drain(wakeup_read)
            idle_since = (idle_since or time.monotonic()) if self._is_unused() else None
            if (
                self._stop_requested
                or self._is_folder_removed()
                or (idle_since is not None and self._may_stop(idle_since))
            ):
                return self._stop(server)
            if server.poll() is None:
                continue
            if not self._should_restart(server.returncode):
                return 0 if server.returncode == 0 else 1
            server = self._start()

    def _listen_to_signals(self) -> int:
        wakeup_read, wakeup_write = os.pipe()
        os.set_blocking(wakeup_read, False)
        os.set_blocking(wakeup_write, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
        return wakeup_read

    def _on_stop(self, _signum: int, _frame: FrameType | None) -> None:
        self._stop_requested = True

    def _start(self) -> subprocess.Popen[bytes]:
        # The server inherits this lock, so it is held exactly as long as the server lives.
        lock = _open_locked("server.lock")
        self._started = time.monotonic()
        server = subprocess.Popen(  # noqa: S603 - the program and its one argument are ours
            [self._binary, "server.conf"],
            stdin=subprocess.DEVNULL,
            pass_fds=(lock,),
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - one thread only
        )
        _write_pid(lock, server.pid)
        # The server holds the lock through its inherited descriptor.
        os.close(lock)
        return server

    def _should_restart(self, code: int) -> bool:
        """Return whether the server crashed (it was not shut down) after more than 0.5 s, and still has users."""
        return code != 0 and time.monotonic() - self._started > _CRASH_LOOP_S and not self._is_unused()

    def _is_unused(self) -> bool:
        # A user who arrives between lock and unlock retries for its timeout (`FileLock.acquire`).
        free = _try_lock(self._users)
        if free:
            fcntl.flock(self._users, fcntl.LOCK_UN)
        return free

    def _may_stop(self, idle_since: float) -> bool:
        """Return whether the grace time is over and no user arrives; from then on no user can arrive."""
        if time.monotonic() - idle_since < self._grace_s:
            return False
        start = os.open("start.lock", os.O_RDWR | os.O_CREAT, 0o600)
        if _try_lock(start) and self._is_unused():
            # The descriptor stays open: the exit of this process admits the next starter, when the server has stopped.
            return True
        os.close(start)
        return False

    def _is_folder_removed(self) -> bool:
        """Return whether the folder was removed: then no user could find a restarted server."""
        try:
            return (self._folder / "users.lock").stat().st_ino != os.fstat(self._users).st_ino
        except OSError:
            return True

    def _stop(self, server: subprocess.Popen[bytes]) -> int:
        server.terminate()
        try:
            server.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        return 0


def _open_locked(name: str) -> int:
    fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_pid(fd: int, pid: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{pid}\n".encode(), 0)


def _drain(wakeup_read: int) -> None:
    try:
        os.read(wakeup_read, 512)
    except BlockingIOError:
        return


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main(folder: str, binary: str, grace_s: str) -> int:
    """Acquire the watcher's lock, daemonize and run; the caller's process exits at once with 0."""
    os.chdir(folder)
    os.umask(0o077)  # the files of the server are their owner's alone
    # Before the fork: when the parent exits, `ensure` must already see that a watcher runs.
    lock = _open_locked("watcher.lock")
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    _write_pid(lock, os.getpid())
    return Watcher(Path(folder), binary, float(grace_s)).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
