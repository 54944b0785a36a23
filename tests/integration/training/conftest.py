"""The shop of ``shop.py``: filled once, and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.contract.clock import ManualClock
from skewless.infra.reads.offline.engine import connect
from tests.memory_store import MemoryStore
from tests.worlds.shop import END, Shop, open_shop


@pytest.fixture(scope="session")
def filled_shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemoryStore]:
    """The folder of a shop and its online store; only ever copied."""
    with open_shop(tmp_path_factory.mktemp("filled")) as one:
        one.project_state.database.close()
        return one.root, one.memory


@pytest.fixture
def shop(filled_shop: tuple[Path, MemoryStore], tmp_path: Path) -> Iterator[Shop]:
    root, filled = filled_shop
    shutil.copytree(root, tmp_path / "shop")
    memory = MemoryStore()
    memory.rows, memory.markers = dict(filled.rows), dict(filled.markers)
    with connect(tmp_path / "spill", threads=1) as connection:
        yield Shop(root=tmp_path / "shop", opened=connection, clock=ManualClock(END), memory=memory)
