"""A real server for all projects, and one project for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from skewless.contract.clock import OffsetClock
from skewless.project import Project
from tests.servers.node import Node
from tests.worlds.windowed_feast import NOW, WindowedFeastProject, write_repo

MakeWindowed = Callable[..., WindowedFeastProject]


@pytest.fixture
def make_windowed(tmp_path: Path, valkey: Node) -> Iterator[MakeWindowed]:
    """Write and apply a project whose clock the test moves."""
    opened: list[WindowedFeastProject] = []

    def made(**offline: str) -> WindowedFeastProject:
        repo = tmp_path / f"repo{len(opened)}"
        write_repo(repo, valkey.url, f"w{uuid4().hex}", **offline)
        project = Project(repo)
        clock = project.clock
        assert isinstance(clock, OffsetClock)
        clock.set(NOW)
        project.apply()
        opened.append(WindowedFeastProject(project=project))
        return opened[-1]

    yield made
    for windowed in opened:
        windowed.close()


@pytest.fixture
def windowed(make_windowed: MakeWindowed) -> WindowedFeastProject:
    """A project whose states are built, of a log without events."""
    windowed = make_windowed()
    windowed.build()
    return windowed
