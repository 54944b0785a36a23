"""A real server for all projects, and one project for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.node import Node
from tests.worlds.windowed_feast import WindowedFeastProject, open_windowed

MakeWindowed = Callable[..., WindowedFeastProject]


@pytest.fixture
def make_windowed(tmp_path: Path, valkey: Node) -> Iterator[MakeWindowed]:
    """Write and apply a project whose clock the test moves."""
    opened: list[WindowedFeastProject] = []

    def made(**offline: str) -> WindowedFeastProject:
        opened.append(open_windowed(tmp_path / f"repo{len(opened)}", valkey.url, **offline))
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
