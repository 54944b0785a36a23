"""Waiting for what must come, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

PATIENCE_S = 200.0  # less than a test may take: what was seen last is told
_STEP_S, _LONG_STEP_S = 0.005, 0.5
T = TypeVar("T")


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, looking often."""
    eventually(condition)


def eventually(look: Callable[[], T], good: Callable[[T], object] = bool) -> T:
    """Return what is seen once it is good.

    A look that takes long is followed by a longer pause: it must not take the CPU from what is waited for.
    """
    begin = time.monotonic()
    deadline = begin + PATIENCE_S
    while not good(seen := look()):
        end = time.monotonic()
        assert end < deadline, f"did not come; seen last: {seen}"
        time.sleep(min(max(_STEP_S, 2 * (end - begin)), _LONG_STEP_S))
        begin = time.monotonic()
    return seen


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it may end between opening and reading
        return False
    return state not in {"Z", "X"}
