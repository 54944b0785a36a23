"""Projects on our stores for cases of what a store must do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.feast_conformance import World
from tests.worlds.feast_twins import tear_down


@pytest.fixture(scope="session")
def conformance_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server for all projects."""
    with running(Node(program("valkey"), tmp_path_factory.mktemp("server"))) as node:
        yield node.port


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory, conformance_port: int) -> Iterator[World]:
    """An empty project."""
    world = World(tmp_path_factory.mktemp("project"), conformance_port)
    yield world
    tear_down(world.store)
