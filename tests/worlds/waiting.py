"""Waiting for what must come, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 100.0  # less than a test may take: what was seen last is told
_STEP_S = 0.005
T = TypeVar("T")


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, looking often."""
    eventually(condition)


def eventually(look: Callable[[], T], good: Callable[[T], object] = bool) -> T:
    """Return what is seen once it is good."""
    deadline = time.monotonic() + PATIENCE_S
    while not good(seen := look()):
        assert time.monotonic() < deadline, f"did not come; seen last: {seen}"
        time.sleep(_STEP_S)
    return seen
