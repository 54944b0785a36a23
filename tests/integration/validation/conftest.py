"""A trained project, made once; each test works on a copy with an online store of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds.trained import Sandbox, copy_project, make_project, opened


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project with a champion; only ever copied."""
    repo = tmp_path_factory.mktemp("trained") / "p"
    make_project(repo)
    return repo


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Iterator[Sandbox]:
    """A copy whose store was filled again from the log."""
    with opened(copy_project(trained, tmp_path / "p")) as place:
        place.project.materialize(check=False)
        place.wait(60)
        yield place
