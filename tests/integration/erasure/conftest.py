"""Projects on one Redis server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from skewless import ManualClock, workspace
from tests.worlds.erasures import NOW, write_repo

MakeRepo = Callable[..., Path]


@pytest.fixture
def make_repo(tmp_path: Path, server_url: str, monkeypatch: pytest.MonkeyPatch) -> MakeRepo:
    """Write projects on one Redis server; their clock does not advance."""
    monkeypatch.setattr(workspace, "open_clock", lambda _setting: ManualClock(NOW))

    def make(name: str, *, seed: int = 7) -> Path:
        return write_repo(
            tmp_path / name,
            f"{name}_{tmp_path.name}".replace("-", "_"),
            seed=seed,
            settings=f"redis_url: {server_url}\n",
        )

    return make
