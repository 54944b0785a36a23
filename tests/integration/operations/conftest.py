"""Verbs that tell the time of a test's copy of the trained project."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worlds.trained import Sandbox


@pytest.fixture(autouse=True)
def clock_of_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a test's copy in verbs as well: what they answer does not depend on the machine's date."""
    monkeypatch.setenv("SKEWLESS_CLOCK", f"file:{tmp_path}/p/.skewless/clock")


@pytest.fixture
def place(place: Sandbox) -> Sandbox:
    """A copy a minute after its store was filled."""
    place.wait(60)
    return place
