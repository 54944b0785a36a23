"""Servers that keep what they acknowledged, for tests that make them lose some of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.losses import DURABLE
from tests.servers.cluster import Cluster, cluster
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.streams import StreamWorld


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running(Node(program("valkey"), tmp_path / "node", DURABLE)) as one:
        yield one


@pytest.fixture(scope="module")
def started_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(program("valkey"), tmp_path_factory.mktemp("cluster"), options=DURABLE) as three:
        yield three


@pytest.fixture
def nodes(started_nodes: Cluster) -> Cluster:
    started_nodes.flush()
    return started_nodes


@pytest.fixture
def world(tmp_path: Path, valkey: Node) -> StreamWorld:
    """A project with a stream and no states yet, on an emptied server."""
    valkey.ask("FLUSHALL")
    return StreamWorld(root=tmp_path / "p", url=valkey.url)
