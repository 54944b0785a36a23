"""A server that speaks DynamoDB and Kinesis, in a process of its own: moto, with the faults that a test asks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.servers.node import _KILL_WITH_PARENT
from tests.servers.object_storage import CREDENTIALS, storage_command
from tests.worlds.ports import free_ports
from tests.worlds.waiting import until

REGION = "eu-central-1"
_ANSWER_S = 60.0


class AwsServer:
    """A server on a port of this machine; what it holds is in memory.

    Args:
        folder: of its log.
    """

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._log = folder / "moto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; after a stop it is empty and has the same address."""
        python, *_ = storage_command("", "")
        words = [python, str(Path(__file__).with_name("aws_program.py")), str(self.port)]
        with self._log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _KILL_WITH_PARENT, *words],
                cwd=self._log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
        until(lambda: process.poll() is not None or self._is_up())
        assert process.poll() is None, self._log.read_text(encoding="utf-8")

    def stop(self) -> None:
        """Kill it; what it holds is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_ANSWER_S)
            self._process = None

    def fail(self, *faults: dict[str, Any]) -> dict[str, int]:
        """Answer calls badly from now on; return the calls since the last time, by action."""
        counts: dict[str, int] = json.loads(self._post("/faults", json.dumps(faults)))
        return counts

    def trim(self, stream: str, shard: str, n: int, *, remove: bool = False) -> None:
        """Remove the first records of a shard of Kinesis, or the shard."""
        self._post("/trim", json.dumps({"stream": stream, "shard": shard, "n": n, "remove": remove}))

    def check_callers(self, after: int) -> None:
        """Check the credentials of callers, after some calls."""
        self._post("/moto-api/reset-auth", str(after))

    def _post(self, path: str, body: str) -> bytes:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_S)) as connection:
            connection.request("POST", path, body)
            return connection.getresponse().read()

    def _is_up(self) -> bool:
        try:
            return self.fail() is not None
        except OSError:
            return False


@contextmanager
def running_aws(folder: Path) -> Iterator[AwsServer]:
    """Run a server, whose credentials this process has."""
    server = AwsServer(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        try:
            server.start()
            yield server
        finally:
            server.stop()
