"""Keys over a real socket: the fast lane and the application refuse alike, and let in while the server runs."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn

from skewless.contract.clock import SystemClock
from skewless.infra.platform.access.api_keys import ApiKey, KeyStore, generate_secret, hash_secret
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.port import OnlineReader
from skewless.serving.access.gate import KeyAccess
from skewless.serving.app import ServingContext, create_app, hot_routes
from skewless.serving.events import EventForwarder
from skewless.serving.http.feedback_routes import Feedback
from skewless.serving.http.hot_protocol import make_protocol
from skewless.serving.http.wire_limits import WireLimits
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor
from tests.worlds.waiting import until


@dataclass(frozen=True)
class GuardedServer:
    """A server that has keys, and no models: who is let in is told that the body is wrong."""

    port: int
    file: KeyStore

    def add(self, name: str, scope: str, rate: float | None = None) -> str:
        secret = generate_secret(name)
        digest = hash_secret(secret.encode())
        self.file.add(ApiKey(name=name, digest=digest, scopes=frozenset({scope}), rate=rate, created_us=1))
        return secret

    def ask(self, method: str, path: str, key: str | None = None) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and body of a reply."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        try:
            connection.request(method, path, "{" if method == "POST" else None, headers)
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, json.loads(reply.read())
        finally:
            connection.close()


async def _serve(file: KeyStore, link: socket.socket, servers: list[uvicorn.Server]) -> None:
    serving = ServingContext(
        models=cast("ModelTable", None),
        predictor=Predictor(online=cast("OnlineReader", None), clock=SystemClock(), log=None),
        metrics=Metrics(),
        events=cast("EventForwarder", None),
        feedback=cast("Feedback", None),
        reload_seconds=3_600,
        access=KeyAccess(file, lambda: 2),
        local=False,
    )
    routes = hot_routes(serving)
    lane = make_protocol(routes, WireLimits(body_bytes=1_000))
    servers.append(uvicorn.Server(uvicorn.Config(create_app(serving, routes), http=lane, log_config=None)))
    await servers[0].serve(sockets=[link])


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[GuardedServer]:
    file, servers = KeyStore(ProjectState(tmp_path)), cast("list[uvicorn.Server]", [])
    link = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(_serve(file, link, servers)))
    thread.start()
    until(lambda: servers and servers[0].started)
    yield GuardedServer(link.getsockname()[1], file)
    servers[0].should_exit = True
    thread.join(20)
    link.close()


def wait_until_known(locked: GuardedServer, key: str) -> None:
    until(lambda: locked.ask("GET", "/nowhere", key)[0] != 401)


@pytest.mark.parametrize(("method", "path"), [("POST", "/predict"), ("GET", "/metrics")])
def test_without_a_key_nobody_gets_in_but_health_is_told(locked: GuardedServer, method: str, path: str) -> None:
    for key in (None, generate_secret("web")):
        status, headers, body = locked.ask(method, path, key)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert "API key: is " in body["error"]["message"]
    assert locked.ask("GET", "/health/live")[0] == 200


def test_keys_let_in_and_are_taken_back_while_the_server_runs(locked: GuardedServer) -> None:
    key = locked.add("web", "predict")
    wait_until_known(locked, key)
    assert locked.ask("POST", "/predict", key)[0] == 400
    assert locked.ask("POST", "/models/refresh", key)[0] == 403
    other = locked.add("other", "feedback")
    locked.file.revoke("web")
    wait_until_known(locked, other)
    assert locked.ask("POST", "/predict", key)[0] == 401
    status, _, body = locked.ask("POST", "/predict", other)
    assert (status, body["error"]["kind"]) == (403, "scope")
    assert "'predict'" in body["error"]["problem"]


def test_an_unknown_request_that_may_change_something_needs_admin(locked: GuardedServer) -> None:
    key, admin = locked.add("web", "predict"), locked.add("chief", "admin")
    wait_until_known(locked, admin)
    for method, path in (("PUT", "/lists/stolen"), ("POST", "/decisions"), ("DELETE", "/sinks/out"), ("POST", "/plan")):
        status, _, body = locked.ask(method, path, key)
        assert (status, body["error"]["kind"]) == (403, "scope")
        assert "'admin'" in body["error"]["problem"]
        assert locked.ask(method, path, admin)[0] == 404


def test_the_rate_of_a_key_counts_for_both_lanes_together(locked: GuardedServer) -> None:
    wait_until_known(locked, locked.add("first", "predict"))
    slow = locked.add("slow", "predict", rate=1e-3)
    wait_until_known(locked, slow)  # takes the one request that it has
    for method, path in (("POST", "/predict"), ("GET", "/nowhere")):
        status, headers, body = locked.ask(method, path, slow)
        assert (status, headers["retry-after"], body["error"]["kind"]) == (429, "1000", "rate")
