"""A storage that speaks S3, in a process of its own: moto's server, from the environment of the clients."""

from __future__ import annotations

import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from tests.servers.node import _KILL_WITH_PARENT
from tests.worlds.waiting import until

BUCKET = "features"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "storage-test", "AWS_SECRET_ACCESS_KEY": "storage-secret"}
_PORTS = range(31_000, 32_000)
_TRIES = 20
_ANSWER_S = 10.0
_random = random.SystemRandom()


class ObjectStorageServer:
    """A server on a free port of this machine with an empty bucket; its objects are in memory.

    Args:
        folder: of its log.
    """

    def __init__(self, folder: Path) -> None:
        self.endpoint = ""
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def address(self, prefix: str) -> str:
        """Return the address of objects in the bucket."""
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}&region=us-east-1"

    def start(self) -> None:
        """Start it, and create the bucket."""
        for port in _random.sample(_PORTS, _TRIES):
            if self._has_started(port):
                request = urllib.request.Request(f"{self.endpoint}/{BUCKET}", method="PUT")
                urllib.request.urlopen(request, timeout=_ANSWER_S).close()
                return
        raise AssertionError((self._folder / "moto.log").read_text(encoding="utf-8", errors="replace"))

    def stop(self) -> None:
        """Kill it; its objects are lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_ANSWER_S)
            self._process = None

    def _has_started(self, port: int) -> bool:
        python = Path(f"{sys.prefix}-clients/bin/python")
        assert python.exists(), "run `make setup-clients`"
        self.endpoint = f"http://127.0.0.1:{port}"
        words = ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with (self._folder / "moto.log").open("wb") as log:
            self._process = process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _KILL_WITH_PARENT, str(python), *words],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(lambda: process.poll() is not None or self._answers())
        return process.poll() is None

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.endpoint}/moto-api/data.json", timeout=_ANSWER_S).close()
        except (URLError, OSError):
            return False
        return True


@contextmanager
def running_object_storage(folder: Path) -> Iterator[ObjectStorageServer]:
    """Run a server with an empty bucket."""
    server = ObjectStorageServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
