"""A project that the command line itself made, at three stages; each test that changes it takes a copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.online.private_server import PrivateServer
from tests.command_line import done


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Three projects: ``new`` after init, ``applied``, and ``walked`` to a champion."""
    root = tmp_path_factory.mktemp("cli")
    stages = {name: root / name for name in ("new", "applied", "walked")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_PORT", "0")
        patch.setenv("SKEWLESS_THREADS", "1")
        done("init", stages["new"])
        shutil.copytree(stages["new"], stages["applied"])
        done("apply", "--repo", stages["applied"])
        shutil.copytree(stages["applied"], stages["walked"])
        done("materialize", "--repo", stages["walked"])
        done("train", "--repo", stages["walked"])
        yield stages
        PrivateServer(stages["walked"] / ".skewless").stop()


@pytest.fixture
def new(places: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a project as ``init`` left it."""
    return _copy(places["new"], tmp_path)


@pytest.fixture
def applied(places: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a project with a plan in force, nothing materialised."""
    return _copy(places["applied"], tmp_path)


@pytest.fixture
def walked(places: dict[str, Path]) -> Path:
    """The one project with rows online and a champion; leave its definitions and data alone."""
    return places["walked"]


def _copy(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place, tmp_path / "project"))
