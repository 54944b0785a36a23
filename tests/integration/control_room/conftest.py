"""A project whose model has a second version, and no rollout in progress."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds.rollouts import make_rollout
from tests.worlds.trained import Sandbox, copy_project, opened


@pytest.fixture(scope="session")
def two_versions(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rollout(trained, tmp_path_factory.mktemp("models") / "p")


@pytest.fixture
def spot(two_versions: Path, tmp_path: Path) -> Iterator[Sandbox]:
    """A project whose model has a second version, and no rollout in progress."""
    with opened(copy_project(two_versions, tmp_path / "p")) as place:
        yield place
