"""A schema registry that is not ours: Apicurio Registry on a free port, by its API of Confluent's registry."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from tests.servers.kafka import _JAVA, _KILL_WITH, find_program
from tests.servers.node import _KILL_WITH_PARENT
from tests.systems import note_system
from tests.worlds.built_once import built_once
from tests.worlds.waiting import until

_FOLDER = Path(f"{sys.prefix}-registry")
_LISTENING = re.compile(r"Listening on: http://127\.0\.0\.1:(\d+)")
_CONTENT = "application/vnd.schemaregistry.v1+json"
_ANSWER_S = 60.0


class ApicurioRegistry:
    """A registry at an address; its schemas are in its folder, so that they outlive a kill.

    Args:
        folder: its data, where the tests started it, so that they can stop it too.
        properties: of the program, beyond those of its address.
    """

    def __init__(self, folder: Path | None = None, *, port: int = 0, properties: Sequence[str] = ()) -> None:
        self._folder, self._port = folder, port
        self._properties = properties
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the address, as the setting ``schema_registry`` has it."""
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def add(self, subject: str, kind: str, text: str, references: Sequence[dict[str, Any]] = ()) -> int:
        """Register a schema as a producer does; return its id."""
        schema = {"schemaType": kind, "schema": text, "references": references}
        status, reply = self.ask("POST", f"/subjects/{subject}/versions", schema)
        assert status == 200, reply
        return int(reply["id"])

    def check_changes(self, subject: str) -> None:
        """Accept only later schemas of a subject that can read what earlier ones wrote."""
        assert self.ask("PUT", f"/config/{subject}", {"compatibility": "BACKWARD"})[0] == 200

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return status and JSON of a reply."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data, {"Content-Type": _CONTENT}, method=method)  # noqa: S310 - this machine
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=_ANSWER_S) as reply:
                return reply.status, json.load(reply)
        except HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def start(self, ends_with: int | None = None) -> None:
        """Start on the port of last time, or on a free one; ``ends_with``: as of ``KafkaBroker``."""
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        log = self._folder / "server.log"
        log.write_bytes(b"")
        watch = [] if ends_with is None else ["/bin/sh", "-c", _KILL_WITH, "sh", str(ends_with)]
        settings = {
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": str(self._port),
            "quarkus.datasource.jdbc.url": f"jdbc:h2:file:{self._folder / 'schemas'}",
        }
        words = [*(f"-D{name}={value}" for name, value in settings.items()), *self._properties]
        java = [find_java(), *_JAVA, *words, "-jar", str(_jar())]
        with log.open("ab") as output:
            self._process = process = subprocess.Popen(
                [*watch, sys.executable, "-I", "-S", "-c", _KILL_WITH_PARENT, *java],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        until(lambda: process.poll() is not None or _LISTENING.search(log.read_text()))
        match = _LISTENING.search(log.read_text())
        assert match is not None, log.read_text()[-4_000:]
        self._port = int(match[1])

    def kill(self) -> None:
        """Kill the registry; what it has confirmed stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)

    def freeze(self) -> None:
        """Let the registry hang, with its port open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a registry that hangs go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def leave(self) -> int:
        """Let the registry run on without this process; return its port."""
        assert self._process is not None
        self._process.returncode = 0  # else its end is waited for, with a warning
        return self._port


def find_java() -> str:
    """Return the program; the test is skipped where Java or the registry is missing."""
    java = find_program(_FOLDER, "Apicurio Registry", "setup-registry")
    note_system("Apicurio", "echo", _jar().name.removesuffix("-runner.jar"))  # no option of it tells its version
    return java


def _jar() -> Path:
    return next(_FOLDER.glob("*-runner.jar"))


@contextmanager
def apicurio_registry(folder: Path, *properties: str) -> Iterator[ApicurioRegistry]:
    """Run a registry of our own for the length of a block."""
    registry = ApicurioRegistry(folder, properties=properties)
    try:
        registry.start()
        yield registry
    finally:
        registry.kill()


def shared_registry(factory: pytest.TempPathFactory) -> ApicurioRegistry:
    """Return the registry that all workers of a run share; it ends with the run."""
    find_java()
    run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()

    def build(folder: Path) -> None:
        registry = ApicurioRegistry(folder)
        registry.start(run)
        (folder / "port").write_text(str(registry.leave()))

    return ApicurioRegistry(port=int((built_once(factory, "apicurio", build) / "port").read_text()))
