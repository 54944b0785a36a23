"""The process that runs a private server for as long as somebody uses it. Started by path, stdlib only.

::

    user process ──holds shared──> users.lock      (kernel drops it when the user dies, even by kill -9)
    watcher      ──holds─────────> watcher.lock    (one watcher per folder)
       └─ server ──holds─────────> server.lock     (inherited: true while any server writes this data)

The watcher is nobody's child: it leaves the process that started it. Four times a second it tries users.lock;
when no user has been there for the grace time it stops the server with SIGTERM, which syncs the AOF. A server that
crashes while there are users is started again on the same address. If the watcher itself is killed, Linux
sends the server SIGTERM; elsewhere the next ``ensure()`` finds the orphan by server.lock and replaces it.
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
    """Runs the server in ``folder`` until told to stop, or until nobody has used it for ``grace_s``."""

    def __init__(self, folder: Path, binary: str, grace_s: float) -> None:
        """Watch ``folder``, which is the working directory, running ``binary`` there."""
        self._folder = folder
        self._binary = binary
        self._grace_s = grace_s
        self._users = os.open("users.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._told = False
        self._started = 0.0

    def run(self) -> int:
        """Serve until the end; return the exit code (1: the server could not run)."""
        bell = self._listen_to_signals()
        server = self._start()
        idle_since: float | None = None
        while True:
            select.select([bell], [], [], _PROBE_S)
            _drain(bell)
            idle_since = (idle_since or time.monotonic()) if self._unused() else None
            if self._told or self._gone() or (idle_since is not None and self._may_leave(idle_since)):
                return self._stop(server)
            if server.poll() is None:
                continue
            if not self._should_restart(server.returncode):
                return 0 if server.returncode == 0 else 1
            server = self._start()

    def _listen_to_signals(self) -> int:
        bell, rope = os.pipe()
        os.set_blocking(bell, False)
        os.set_blocking(rope, False)
        signal.set_wakeup_fd(rope, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
        return bell

    def _on_stop(self, _signum: int, _frame: FrameType | None) -> None:
        self._told = True

    def _start(self) -> subprocess.Popen[bytes]:
        lock = _locked("server.lock")
        self._started = time.monotonic()
        server = subprocess.Popen(  # noqa: S603 - the program and its one argument are ours
            [self._binary, "server.conf"],
            stdin=subprocess.DEVNULL,
            pass_fds=(lock,),
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - one thread only
        )
        _note_pid(lock, server.pid)
        os.close(lock)
        return server

    def _should_restart(self, code: int) -> bool:
        """Say whether the server crashed (not: was shut down) after a useful life, and is still wanted."""
        return code != 0 and time.monotonic() - self._started > _CRASH_LOOP_S and not self._unused()

    def _unused(self) -> bool:
        free = _try_lock(self._users)
        if free:
            fcntl.flock(self._users, fcntl.LOCK_UN)
        return free

    def _may_leave(self, idle_since: float) -> bool:
        """Say whether the grace time is over and nobody is arriving; nobody can arrive from then on."""
        if time.monotonic() - idle_since < self._grace_s:
            return False
        start = os.open("start.lock", os.O_RDWR | os.O_CREAT, 0o600)
        if _try_lock(start) and self._unused():
            # The descriptor stays open: the exit of this process lets the next starter in, on a stopped server.
            return True
        os.close(start)
        return False

    def _gone(self) -> bool:
        """Say whether the folder was removed under us (then no user can be told of a new server)."""
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


def _locked(name: str) -> int:
    fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note_pid(fd: int, pid: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{pid}\n".encode(), 0)


def _drain(bell: int) -> None:
    try:
        os.read(bell, 512)
    except BlockingIOError:
        return


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main(folder: str, binary: str, grace_s: str) -> int:
    """Take the watcher's lock, leave the caller, and run; the caller's process ends at once with 0."""
    os.chdir(folder)
    lock = _locked("watcher.lock")
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    _note_pid(lock, os.getpid())
    return Watcher(Path(folder), binary, float(grace_s)).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
