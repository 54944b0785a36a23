"""A storage that speaks S3, in a process of its own: moto's server, from the environment of the clients."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

from tests.servers.node import _KILL_WITH_PARENT
from tests.worlds.waiting import until

BUCKET = "features"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "storage-test", "AWS_SECRET_ACCESS_KEY": "storage-secret"}
_ANSWER_S = 60.0


def storage_command(address: str, port: str) -> list[str]:
    """Return the words of the command that runs a server."""
    python = Path(f"{sys.prefix}-clients/bin/python")
    assert python.exists(), "run `make setup-clients`"
    return [str(python), "-m", "moto.server", "-H", address, "-p", port]


def make_bucket(endpoint: str) -> None:
    """Create the bucket of a server that runs."""
    with closing(HTTPConnection(endpoint.removeprefix("http://"), timeout=_ANSWER_S)) as connection:
        connection.request("PUT", f"/{BUCKET}")
        assert connection.getresponse().status == HTTPStatus.OK


def object_address(endpoint: str, prefix: str) -> str:
    """Return the address of objects in the bucket."""
    return f"s3://{BUCKET}/{prefix}?endpoint={endpoint}&region=us-east-1"


class ObjectStorageServer:
    """A server on a free port of this machine, with an empty bucket; its objects are in memory.

    Args:
        folder: of its log.
    """

    def __init__(self, folder: Path) -> None:
        self.endpoint = ""
        self._log = folder / "moto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def address(self, prefix: str) -> str:
        """Return the address of objects in the bucket."""
        return object_address(self.endpoint, prefix)

    def start(self) -> None:
        """Start it, and create the bucket; after a stop it has the same address."""
        words = storage_command("127.0.0.1", self.endpoint.rpartition(":")[2] or "0")
        with self._log.open("wb") as log:
            self._process = process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _KILL_WITH_PARENT, *words],
                cwd=self._log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(lambda: process.poll() is not None or self._find_endpoint())
        self.endpoint = self._find_endpoint()
        assert self.endpoint, self._log.read_text(encoding="utf-8")
        make_bucket(self.endpoint)

    def stop(self) -> None:
        """Kill it; its objects are lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_ANSWER_S)
            self._process = None

    def _find_endpoint(self) -> str:
        endpoint = re.search(r"Running on (http://127\.0\.0\.1:\d+)", self._log.read_text(encoding="utf-8"))
        return endpoint[1] if endpoint else ""


@contextmanager
def running_object_storage(folder: Path) -> Iterator[ObjectStorageServer]:
    """Run a server with an empty bucket."""
    server = ObjectStorageServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
