"""An executor on Ray, and the project whose features its frames get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.contract.settings import Settings
from skewless.infra.reads.engines.port import Executor, open_executor
from tests.worlds.frames import make_repo

_MISSING = "needs Ray: make setup-ray"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray copies its settings, and warns of each old one, whichever test comes first."""
    for item in (item for item in items if item.path.parent == Path(__file__).parent):
        item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"))


@pytest.fixture(scope="session")
def engine() -> Iterator[Executor]:
    """Two workers of this machine."""
    pytest.importorskip("ray", reason=_MISSING)
    engine = open_executor("ray", Settings(engine_workers=2))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def repo(engine: Executor, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001 - not made without it
    """The project; only read."""
    return make_repo(tmp_path_factory.mktemp("frames") / "p")
