"""A running ``skewless serve``, asked over HTTP."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.worlds.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
MAIN = "from skewless.cli import main; main()"
PROGRAM = (sys.executable, "-c", MAIN)


@dataclass(frozen=True, kw_only=True)
class PredictionServer:
    """A process of its own; what it says on stderr is kept for the end."""

    process: subprocess.Popen[str]
    url: str
    repo: Path = Path()  # of a server that this class started
    headers: Mapping[str, str] = field(default_factory=dict)  # of each request
    tls: ssl.SSLContext | None = None

    @classmethod
    def start(cls, repo: Path, **settings: str) -> PredictionServer:
        return cls.start_release(ROOT, repo, settings)

    @classmethod
    def start_release(
        cls, code: Path, repo: Path, settings: Mapping[str, str], program: Sequence[str] = PROGRAM
    ) -> PredictionServer:
        """Start a server of the code in a folder: Python looks first in its working directory."""
        path = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            _command(repo, program),
            cwd=code,
            env={**_environment(), "PYTHONPATH": path, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert "url" in line, line
        return cls(process=process, url=line["url"], repo=repo)

    @property
    def grpc_address(self) -> str:
        """HOST:PORT, of a server that was started with ``SKEWLESS_GRPC_PORT``."""
        body = json.loads((self.repo / ".skewless/server.json").read_text())
        return str(body["grpc"])

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], str]:
        """Return status, headers and text of a reply."""
        address = urlsplit(self.url).netloc
        connection = (
            HTTPConnection(address, timeout=PATIENCE_S)
            if self.tls is None
            else HTTPSConnection(address, timeout=PATIENCE_S, context=self.tls)
        )
        try:
            kind = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, body, {**kind, **self.headers, **(headers or {})})
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read().decode()
        finally:
            connection.close()

    def post(self, path: str, body: str) -> tuple[int, Any]:
        """Return status and JSON of a reply."""
        status, _, text = self.ask("POST", path, body.encode())
        return status, json.loads(text)

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON, or text where it is none
        text = self.ask("GET", path)[2]
        return json.loads(text) if text.startswith("{") else text

    def stop(self) -> None:
        """End the process; it must end cleanly, and never have shown a traceback."""
        self.process.send_signal(signal.SIGTERM)
        said, logged = self.process.communicate(timeout=PATIENCE_S)
        assert (self.process.returncode, said) == (0, ""), logged
        assert "Traceback" not in logged, logged


def refused_start(repo: Path) -> tuple[int, str]:
    """Return exit code and answer of a server that does not come up."""
    said = subprocess.run(
        _command(repo), cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert "Traceback" not in said.stderr, said.stderr
    return said.returncode, said.stdout


def _command(repo: Path, program: Sequence[str] = PROGRAM) -> list[str]:
    return [*program, "serve", "--repo", str(repo), "--json"]


def _environment() -> dict[str, str]:
    # Feast, once imported, sends the metrics of its process and of all children to files.
    return {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
