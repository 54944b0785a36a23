"""A trained project is made once; each test works on a copy with an online store and a clock of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _end_workers() -> Iterator[None]:
    """End the workers that tests of engines share."""
    yield
    if workers := sys.modules.get("tests.worlds.workers"):
        workers.WORKERS.end()
