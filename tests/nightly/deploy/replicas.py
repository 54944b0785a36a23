"""Three real servers of one project, which a test kills, drains, hangs and replaces."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from skewless.infra.platform.access.api_keys import ApiKey, KeyStore, generate_secret, hash_secret
from tests.nightly.deploy.callers import Question, question
from tests.servers.prediction import ROOT, PredictionServer
from tests.worlds.ports import free_ports
from tests.worlds.trained import NOW, Sandbox, ask
from tests.worlds.waiting import PATIENCE_S

DRAIN_S = 2  # longer than a gateway needs to see that a server is not ready


@dataclass
class Replicas:
    """Servers 0, 1 and 2, each on a port that it has again after a restart.

    Args:
        repo: the project's folder.
        key: an API key, which the servers require.
        code: the folder with the release that new servers run.
        settings: more variables of new servers.
    """

    repo: Path
    key: str
    code: Path = ROOT
    settings: dict[str, str] = field(default_factory=dict)
    ports: list[int] = field(default_factory=lambda: free_ports(3))
    servers: dict[int, PredictionServer] = field(default_factory=dict)

    def start(self, n: int, **settings: str) -> None:
        """Start a server; return when it is ready."""
        variables = {"SKEWLESS_PORT": str(self.ports[n]), "SKEWLESS_CLOCK": f"file:{self.repo}/.skewless/clock"}
        variables |= {"SKEWLESS_DRAIN_SECONDS": str(DRAIN_S), **self.settings, **settings}
        self.servers[n] = PredictionServer.start_release(self.code, self.repo, variables)

    def start_all(self) -> None:
        """Start all servers at the same time."""
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(self.start, range(3)))

    def signal(self, n: int, number: signal.Signals) -> None:
        """Send a signal to a server."""
        self.servers[n].process.send_signal(number)

    def wait(self, n: int) -> int:
        """Wait for the end of a server; return its exit code."""
        process = self.servers.pop(n).process
        said, logged = process.communicate(timeout=PATIENCE_S)
        assert (said, "Traceback" in logged) == ("", False), logged
        return process.returncode

    def stop_all(self) -> None:
        """Drain all servers."""
        for n in list(self.servers):
            self.signal(n, signal.SIGTERM)
        for n in list(self.servers):
            assert self.wait(n) == 0

    def replace(self, n: int) -> None:
        """Drain a server, and start another one in its place."""
        self.signal(n, signal.SIGTERM)
        assert self.wait(n) == 0
        self.start(n)

    def predicted(self, n: int) -> int:
        """Return how many requests a server has answered."""
        return _sum_series("skewless_requests_total", self.servers[n])

    def total(self, series: str) -> int:
        """Return the sum of a metric over all servers."""
        return sum(_sum_series(series, server) for server in self.servers.values())

    def ask(self, fields: dict[str, Any]) -> tuple[str, float]:
        """Return version and score of one row, as the first server answers without a gateway."""
        status, _, text = next(iter(self.servers.values())).ask(
            "POST", "/predict", orjson.dumps(fields), {"X-API-Key": self.key}
        )
        assert status == 200, text
        reply = orjson.loads(text)
        return reply["version"], reply["predictions"][0]["score"]

    def questions(self, n: int) -> list[Question]:
        """Return questions about n cards, with the right scores of the version that answers now."""
        asked = [{"rows": [row], "as_of": NOW} for row in ask(n)]
        return [question(fields, dict([self.ask(fields)]), f"card-{i}", self.key) for i, fields in enumerate(asked)]

    def close(self) -> None:
        """End all servers at once."""
        for server in self.servers.values():
            with server.process:
                server.process.kill()


def _sum_series(name: str, server: PredictionServer) -> int:
    return int(sum(map(float, re.findall(rf"^{name}\{{[^\n]*\}} (\S+)$", server.get("/metrics"), re.MULTILINE))))


def _add_key(place: Sandbox) -> str:
    """Add an API key for callers; return its secret."""
    secret = generate_secret("callers")
    scopes = frozenset({"predict", "as_of", "feedback"})
    key = ApiKey(name="callers", digest=hash_secret(secret.encode()), scopes=scopes, created_us=1)
    KeyStore(place.project.state).add(key)
    return secret


@contextmanager
def replicas(place: Sandbox, code: Path = ROOT, **settings: str) -> Iterator[Replicas]:
    """Run three servers of a project for the length of a block."""
    settings |= {"SKEWLESS_REDIS_URL": place.project.redis_url, "SKEWLESS_AUTH": "required"}
    servers = Replicas(place.repo, key=_add_key(place), code=code, settings=settings)
    try:
        servers.start_all()
        yield servers
    finally:
        servers.close()
