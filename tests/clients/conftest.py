"""A served project, and a Python that knows other people's clients but not us."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.prediction import PredictionServer
from tests.worlds.trained import make_project, opened


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PredictionServer]:
    repo = tmp_path_factory.mktemp("clients") / "p"
    make_project(repo)
    with opened(repo):
        server = PredictionServer.start(repo, SKEWLESS_PORT="0", SKEWLESS_CLOCK=f"file:{repo}/.skewless/clock")
        yield server
        server.stop()


@pytest.fixture(scope="session")
def foreign() -> str:
    """The interpreter of the clients' environment, which stands beside ours."""
    python = Path(f"{sys.prefix}-clients/bin/python")
    assert python.exists(), "run `make setup-clients`"
    return str(python)
