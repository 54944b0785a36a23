"""A real Valkey, a project with an event source, and the routes on a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import cast

import pytest
import uvicorn

from skewless.contract.settings import Settings
from skewless.serving.app import ServingContext, create_app
from skewless.serving.events import EventForwarder
from skewless.serving.http.feedback_routes import Feedback
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor
from tests.servers.node import Node
from tests.worlds.waiting import until
from tests.worlds.windowed_feast import WindowedFeastProject, open_windowed

EVENT_BYTES = 2_000


@dataclass(frozen=True, kw_only=True)
class EventRoutes:
    """The routes of events, on a port of their own."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, path: str, body: bytes, kind: str = "application/json") -> tuple[int, dict[str, str], str]:
        """Return status, headers and text of a reply."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("POST", path, body, {"Content-Type": kind})
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read().decode()
        finally:
            connection.close()


@pytest.fixture
def windowed(tmp_path: Path, valkey: Node) -> Iterator[WindowedFeastProject]:
    """A project whose states are built, of a log without events."""
    windowed = open_windowed(tmp_path / "repo", valkey.url)
    windowed.build()
    yield windowed
    windowed.close()


@pytest.fixture
def event_routes(windowed: WindowedFeastProject) -> Iterator[EventRoutes]:
    """The routes over that project."""
    with serving(windowed, windowed.project.redis_url) as event_routes:
        yield event_routes


@contextmanager
def serving(windowed: WindowedFeastProject, redis_url: str) -> Iterator[EventRoutes]:
    """Serve the routes for a while."""
    settings = Settings(event_bytes=EVENT_BYTES)
    events = EventForwarder(windowed.project.state, redis_url, windowed.project.store, settings)
    listener = socket.create_server(("127.0.0.1", 0))
    servers: list[uvicorn.Server] = []
    thread = threading.Thread(target=lambda: asyncio.run(_serve(events, listener, servers)))
    thread.start()
    try:
        until(lambda: servers and servers[0].started)
        yield EventRoutes(port=listener.getsockname()[1])
    finally:
        servers[0].should_exit = True
        thread.join(20)
        listener.close()
    assert not thread.is_alive()


async def _serve(events: EventForwarder, listener: socket.socket, servers: list[uvicorn.Server]) -> None:
    parts = ServingContext(
        models=cast("ModelTable", None),
        predictor=cast("Predictor", None),
        metrics=Metrics(),
        reload_seconds=3_600,
        events=events,
        feedback=cast("Feedback", None),
    )
    servers.append(uvicorn.Server(uvicorn.Config(create_app(parts), log_config=None, access_log=False)))
    await servers[0].serve(sockets=[listener])
    await events.close()
