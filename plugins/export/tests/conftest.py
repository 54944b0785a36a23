"""A project whose commands tell the time of a test's copy."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def clock_of_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a test's copy in commands as well: what they answer does not depend on the machine's date."""
    monkeypatch.setenv("SKEWLESS_CLOCK", f"file:{tmp_path}/p/.skewless/clock")
