"""A real server for all projects, and one project for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from skewless.contract.clock import OffsetClock
from skewless.project import Project
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.windowed_feast import NOW, World, write_repo

Make = Callable[..., World]


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server."""
    with running(Node(program("valkey"), tmp_path_factory.mktemp("server"))) as node:
        yield f"redis://127.0.0.1:{node.port}/0"


@pytest.fixture
def make(tmp_path: Path, address: str) -> Iterator[Make]:
    """Write and apply a project whose clock the test moves."""
    opened: list[World] = []

    def made(**offline: str) -> World:
        repo = tmp_path / f"repo{len(opened)}"
        write_repo(repo, address, f"w{uuid4().hex}", **offline)
        project = Project(repo)
        clock = project.clock
        assert isinstance(clock, OffsetClock)
        clock.set(NOW)
        project.apply()
        opened.append(World(project=project))
        return opened[-1]

    yield made
    for world in opened:
        world.close()


@pytest.fixture
def world(make: Make) -> World:
    """A project whose states are built, of a log without events."""
    world = make()
    world.build()
    return world
