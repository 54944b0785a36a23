"""A served project, and a Python that knows other people's clients but not us."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.prediction import PredictionServer
from tests.worlds.trained import opened_copy, serving


@pytest.fixture(scope="session")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PredictionServer]:
    with (
        opened_copy(trained, tmp_path_factory.mktemp("clients") / "p") as place,
        serving(place.repo, SKEWLESS_GRPC_PORT="0") as server,
    ):
        yield server


@pytest.fixture(scope="session")
def foreign() -> str:
    """The interpreter of the clients' environment, which stands beside ours."""
    python = Path(f"{sys.prefix}-clients/bin/python")
    assert python.exists(), "run `make setup-clients`"
    return str(python)
