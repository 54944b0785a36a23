"""A project on the session's server."""

from __future__ import annotations

from pathlib import Path

import pytest

from skewless.infra.log.partition_log import PartitionLog
from tests.integration.infra.event_logs import opened
from tests.worlds.clock import SecondsClock
from tests.worlds.latest import LatestRedisWorld


@pytest.fixture
def latest(tmp_path: Path, server_url: str) -> LatestRedisWorld:
    """A project of latest-value views."""
    return LatestRedisWorld(root=tmp_path, url=server_url)


@pytest.fixture
def clock() -> SecondsClock:
    """Real time of the event log; later than all files that a test makes."""
    return SecondsClock(4e9)


@pytest.fixture
def event_log(tmp_path: Path, clock: SecondsClock) -> PartitionLog:
    """An empty log."""
    return opened(tmp_path, clock)
