"""A project with a history, its control room, and a real browser that looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins.control_room.tests.browser.room import running_room
from tests.worlds.built_once import built_once
from tests.worlds.command_line import done


@pytest.fixture(scope="session")
def fraud_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample project: trained, with predictions, outcomes and proofs; all workers only read and copy it."""
    return built_once(tmp_path_factory, "room", _make_project) / "fraud"


def _make_project(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_THREADS", "1")
        repo = folder / "fraud"
        done("init", repo)
        for words in (("apply",), ("import",), ("materialize",), ("train", "fraud")):
            done(*words, "--repo", repo)
        done(
            "predict", "fraud", "--repo", repo, "--in", repo / "data/requests.parquet", "--out", repo / "scored.parquet"
        )
        for words in (("parity",), ("freshness",)):
            done(*words, "--repo", repo)


@pytest.fixture(scope="session")
def room_url(fraud_project: Path) -> Iterator[str]:
    """The control room of the sample project, in a process of its own."""
    with running_room(fraud_project) as url:
        yield url
