"""A trained project is made once; each test works on a copy with an online store and a clock of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds.trained import Sandbox, opened_copy


@pytest.fixture(scope="session", autouse=True)
def _end_workers() -> Iterator[None]:
    """End the workers that tests of engines share."""
    yield
    if workers := sys.modules.get("tests.worlds.workers"):
        workers.WORKERS.end()


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Iterator[Sandbox]:
    """A copy with the rows of the online store, whose private server starts on first use."""
    with opened_copy(trained, tmp_path / "p", start=False) as place:
        yield place
