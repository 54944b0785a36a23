"""A real Valkey, a project with an event source, and the routes on a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
import uvicorn

from skewless.contract.clock import OffsetClock
from skewless.contract.settings import Settings
from skewless.project import Project
from skewless.serving.app import Serving, create_app
from skewless.serving.events import Events
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor
from tests.feast.windows.world import NOW, World, write_repo
from tests.servers.node import Node, running
from tests.servers.programs import program

EVENT_BYTES = 2_000


@dataclass(frozen=True, kw_only=True)
class Front:
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


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server."""
    with running(Node(program("valkey"), tmp_path_factory.mktemp("server"))) as node:
        yield f"redis://127.0.0.1:{node.port}/0"


@pytest.fixture
def world(tmp_path: Path, address: str) -> Iterator[World]:
    """A project whose states are built, of a log without events."""
    write_repo(tmp_path / "repo", address, f"e{uuid4().hex}")
    project = Project(tmp_path / "repo")
    clock = project.clock
    assert isinstance(clock, OffsetClock)
    clock.set(NOW)
    project.apply()
    world = World(project=project)
    world.build()
    yield world
    world.close()


@pytest.fixture
def front(world: World) -> Iterator[Front]:
    """The routes over that project."""
    with serving(world, world.project.redis_url) as front:
        yield front


@contextmanager
def serving(world: World, redis_url: str) -> Iterator[Front]:
    """Serve the routes for a while."""
    settings = Settings(event_bytes=EVENT_BYTES)
    events = Events(world.project.state, redis_url, world.project.store, settings)
    listener = socket.create_server(("127.0.0.1", 0))
    servers: list[uvicorn.Server] = []
    thread = threading.Thread(target=lambda: asyncio.run(_serve(events, listener, servers)))
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not (servers and servers[0].started):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield Front(port=listener.getsockname()[1])
    finally:
        servers[0].should_exit = True
        thread.join(20)
        listener.close()
    assert not thread.is_alive()


async def _serve(events: Events, listener: socket.socket, servers: list[uvicorn.Server]) -> None:
    parts = Serving(
        models=cast("ModelTable", None),
        predictor=cast("Predictor", None),
        metrics=Metrics(),
        reload_seconds=3_600,
        events=events,
    )
    servers.append(uvicorn.Server(uvicorn.Config(create_app(parts), log_config=None, access_log=False)))
    await servers[0].serve(sockets=[listener])
    await events.close()
