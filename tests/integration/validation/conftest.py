"""A copy of the trained project that has predicted for a while."""

from __future__ import annotations

import pytest

from tests.worlds.trained import Sandbox


@pytest.fixture
def place(place: Sandbox) -> Sandbox:
    """A copy a minute after its store was filled."""
    place.wait(60)
    return place
