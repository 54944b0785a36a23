"""Projects on our stores for cases of what a store must do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.node import Node
from tests.worlds.feast_conformance import ConformanceProject
from tests.worlds.feast_repo import tear_down


@pytest.fixture
def feast_project(tmp_path_factory: pytest.TempPathFactory, valkey: Node) -> Iterator[ConformanceProject]:
    """An empty project."""
    feast_project = ConformanceProject(tmp_path_factory.mktemp("project"), valkey.port)
    yield feast_project
    tear_down(feast_project.store)
