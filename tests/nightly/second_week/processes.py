"""The programs of the project as real processes, and the load of predictions that never stops."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.nightly.second_week.project import SHOPS, USERS

ROOT = Path(__file__).parents[3]
_MAIN = "from skewless.cli import main; main()"
_START_S, _STOP_S = 240.0, 120.0
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Read:
    """One answered request: its moments on the monotonic clock, and what was said."""

    begin: float
    end: float
    model: str
    rows: list[Row]
    status: int
    body: dict[str, Any]


class Program:
    """A verb that runs until it is told to stop; all that it says is in a file of its own."""

    def __init__(self, repo: Path, name: str, *words: str) -> None:
        self.log = repo / f"{name}.log"
        self._command = [sys.executable, "-c", _MAIN, name, "--repo", str(repo), *words]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not _is_foreign(name)}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """As ``kill -9`` does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_STOP_S)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(_STOP_S) == 0, self.tail()

    def check(self) -> None:
        """It never ends by itself, and never tells of an error: there is none in this life.

        A scheduler does: a run is refused while the one before it is under way.
        """
        assert self.process is not None
        assert self.process.poll() is None, f"{self.log.stem} has ended by itself:\n{self.tail()}"
        told = [line for line in self.log.read_text().splitlines() if "[error" in line and "state=refused" not in line]
        assert not told, f"{self.log.stem} tells of errors: {told[0]}"

    def tail(self) -> str:
        return self.log.read_text()[-3_000:]


def _is_foreign(name: str) -> bool:
    return name.startswith(("SKEWLESS_", "PROMETHEUS_MULTIPROC", "COV_CORE"))


class LivingServer(Program):
    """The prediction server, asked over HTTP."""

    def __init__(self, repo: Path, state: Path, *words: str) -> None:
        super().__init__(repo, "serve", "--port", "0", "--json", *words)
        self._place = state / "server.json"

    def start(self) -> None:
        """Start it and wait until it answers; a start that is refused is a failure."""
        self._place.unlink(missing_ok=True)
        super().start()
        assert self.process is not None
        deadline = time.monotonic() + _START_S
        while not self._place.exists() and time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server was refused a start:\n{self.tail()}"
            time.sleep(0.02)

    @property
    def address(self) -> str:
        return str(urlsplit(json.loads(self._place.read_text())["url"]).netloc)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = HTTPConnection(self.address, timeout=30)
        try:
            return _exchange(connection, method, path, body)
        finally:
            connection.close()


def _exchange(connection: HTTPConnection, method: str, path: str, body: object) -> tuple[int, Any]:
    headers = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


def predict(connection: HTTPConnection, model: str, rows: list[Row]) -> Read:
    """Ask for one prediction of each row, with features."""
    begin = time.monotonic()
    status, body = _exchange(connection, "POST", "/predict", {"model": model, "rows": rows, "features": True})
    return Read(begin=begin, end=time.monotonic(), model=model, rows=rows, status=status, body=body)


@dataclass
class Load:
    """Predictions of all models, from a thread, until the end; failures are kept too.

    Args:
        pause_s: between two predictions of each model.
    """

    server: LivingServer
    models: tuple[str, ...]
    chance: random.Random
    pause_s: float
    reads: list[Read] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="load")
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def taken(self) -> list[Read]:
        """Return the reads since the last call."""
        reads, self.reads = self.reads, []
        return reads

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Ask nothing for the length of a block, as while a server is started again."""
        with self._lock:
            yield

    def _run(self) -> None:
        connection = HTTPConnection("nowhere")
        while not self._stop.wait(self.pause_s):
            for model in self.models:
                with self._lock:
                    connection = self._ask(connection, model)
        connection.close()

    def _ask(self, connection: HTTPConnection, model: str) -> HTTPConnection:
        """Ask once; return the connection for the next time."""
        try:
            address = self.server.address
            if f"{connection.host}:{connection.port}" != address:
                connection.close()
                connection = HTTPConnection(address, timeout=30)
            self.reads.append(predict(connection, model, some_rows(self.chance, 2)))
        except (OSError, HTTPException, ValueError) as error:
            self.failures.append(f"{model}: {error!r}")
            connection.close()
        return connection


def some_rows(chance: random.Random, n: int) -> list[Row]:
    """Return rows of some users and shops, one of them sometimes unknown."""
    return [row(chance, chance.choice([*USERS, "nobody"])) for _ in range(n)]


def row(chance: random.Random, user: str) -> Row:
    return {
        "user": user,
        "shop": chance.choice(SHOPS),
        "x": chance.random(),
        "at": 1_768_478_400_000_000 + chance.randrange(10**9),
    }
