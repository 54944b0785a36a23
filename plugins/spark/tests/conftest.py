"""An executor on Spark, and the project whose features its frames get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.contract.settings import Settings
from skewless.infra.reads.engines.port import Executor, open_executor
from tests.worlds.frames import make_repo

_MISSING = "needs Spark: make setup-spark"


@pytest.fixture(scope="session")
def engine() -> Iterator[Executor]:
    """Two workers of this machine."""
    pytest.importorskip("pyspark", reason=_MISSING)
    engine = open_executor("spark", Settings(engine_workers=2))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def repo(engine: Executor, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001 - not made without it
    """The project; only read."""
    return make_repo(tmp_path_factory.mktemp("frames") / "p")
