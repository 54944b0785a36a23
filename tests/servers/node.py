"""One real server on a free port of this machine; it dies with its test, whichever way that ends."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.worlds.waiting import until

# Below the range that the kernel hands out, so that no client's own port is in the way.
_PORTS = range(20_000, 26_000)
BUS = 6_000  # a second port, of a cluster's bus or for TLS, is that much higher
_TRIES = 20
_KILL_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
    if sys.platform == "linux"
    else "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
)
DEFAULTS = {"save": "", "appendonly": "no", "bind": "127.0.0.1", "protected-mode": "yes", "daemonize": "no"}
_random = random.SystemRandom()


class Node:
    """A server that can be started, killed and started again on its port and folder.

    Args:
        program: the server's binary.
        folder: its data and log; made if it is not there.
        options: configuration beyond ``DEFAULTS``; a value with spaces is several words.
        mode: words after the configuration, for example ``--sentinel``.
    """

    def __init__(
        self, program: Path, folder: Path, options: Mapping[str, str] | None = None, *, mode: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.port = 0
        self._program = program
        self._options = {**DEFAULTS, **(options or {})}
        self._mode = mode
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's address for redis-py."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not ended by a test."""
        return self._process is not None

    def start(self) -> None:
        """Start on the port of last time, or on a free one: a port that somebody takes meanwhile is given up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for port in [self.port] * _TRIES if self.port else _random.sample(_PORTS, _TRIES):
            if self._started(port):
                self.port = port
                return
        raise AssertionError(f"{self._program.name} did not start:\n{self.log()}")

    def kill(self) -> None:
        """Kill the server as a power cut would, but for the kernel's buffers."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut the server down as its administrator would."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Let the server hang without closing its connections."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the server go on."""
        self._signal(signal.SIGCONT)

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """Open a plain client, for what no program of ours would do."""
        with redis.Redis(port=self.port, socket_timeout=10) as client:
            yield client

    def ask(self, *words: str | int) -> Any:  # noqa: ANN401 - each command has an answer of its own
        """Send one command."""
        with self.client() as client:
            return cast("Any", client).execute_command(*words)

    def info(self, section: str) -> dict[str, Any]:
        """Return a section of the server's INFO."""
        with self.client() as client:
            return cast("dict[str, Any]", client.info(section))

    def log(self) -> str:
        """Return the end of what the server wrote."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace")[-4_000:] if path.is_file() else ""

    def _started(self, port: int) -> bool:
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _KILL_WITH_PARENT, *self._command(port)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(lambda: self._answers(port) or self._process is None or self._process.poll() is not None)
        return self._process.poll() is None

    def _command(self, port: int) -> list[str]:
        command = [str(self._program)]
        if self._mode:
            # Sentinel keeps its state in its configuration file, so it needs one.
            conf = self.folder / "server.conf"
            if not conf.exists():
                conf.write_text("".join(f"{name} {value}\n" for name, value in self._options.items()))
            return [*command, str(conf), *self._mode, "--port", str(port)]
        command += ["--port", str(port), "--dir", str(self.folder)]
        if self._options.get("cluster-enabled") == "yes":
            command += ["--cluster-port", str(port + BUS)]
        if "tls-cert-file" in self._options:
            command += ["--tls-port", str(port + BUS)]
        for name, value in self._options.items():
            command += [f"--{name}", *(value.split() or [""])]
        return command

    def _answers(self, port: int) -> bool:
        try:
            # Asked once: redis-py would wait a second before it asks again.
            once = Retry(NoBackoff(), 0)
            with redis.Redis(port=port, socket_timeout=2, socket_connect_timeout=2, retry=once) as client:
                # Somebody else may have had the port first; then ours is about to end.
                return bool(cast("dict[str, Any]", client.info("server"))["process_id"] == self.pid)
        except redis.exceptions.RedisError:
            return False

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(20)
            self._process = None

    def _signal(self, which: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(which)


@contextmanager
def running(node: Node) -> Iterator[Node]:
    """Start a server for the length of a block."""
    try:
        node.start()
        yield node
    finally:
        node.kill()
