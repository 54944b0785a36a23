"""A project on the session's server, and the state of one with each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.project_state import ProjectState
from tests.integration.infra.log_victims import LogVictims, log_victims
from tests.integration.infra.partition_logs import opened
from tests.servers.postgres import state_of
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.latest import LatestRedisWorld


@pytest.fixture
def latest(tmp_path: Path, server_url: str) -> LatestRedisWorld:
    """A project of latest-value views."""
    return LatestRedisWorld(root=tmp_path, url=server_url)


@pytest.fixture
def log_state(project_database: Database, tmp_path: Path) -> ProjectState:
    """The state of a project without logs."""
    return state_of(project_database, tmp_path)


@pytest.fixture(params=["sqlite", *(pytest.param(each, marks=pytest.mark.soak) for each in ("postgres", "shared"))])
def killed_state(request: pytest.FixtureRequest, tmp_path: Path) -> ProjectState:
    """The state of a project without logs, of a test that kills: with each database, and objects in S3, too."""
    if request.param == "sqlite":
        return ProjectState(tmp_path)
    if request.param == "postgres":
        return ProjectAddresses(database_url=request.getfixturevalue("postgres_url")).state(tmp_path)
    shared: ProjectAddresses = request.getfixturevalue("shared_addresses")
    return shared.state(tmp_path)


@pytest.fixture
def partition_log(log_state: ProjectState) -> PartitionLog:
    """An empty log."""
    return opened(log_state)


@pytest.fixture(scope="session")
def victims() -> Iterator[LogVictims]:
    """Processes that die at a chosen step."""
    with log_victims() as running:
        yield running
