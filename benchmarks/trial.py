"""Contestants that do next to nothing: what the tests race, and the shape to copy for a new one."""

from __future__ import annotations

import time

from benchmarks.meter import Meter


def sleeper(meter: Meter, *, seconds: float, megabytes: int = 1, result: str = "same") -> str:
    """Sleep, holding memory."""
    with meter.lap():
        held = b"x" * (megabytes * 1_000_000)
        time.sleep(seconds)
    meter.note("held", len(held))
    return result


def spike(meter: Meter, *, megabytes: int) -> str:
    """Hold memory in one lap, give it back, and hold none in the next."""
    with meter.lap("large"):
        held = b"x" * (megabytes * 1_000_000)
    del held
    with meter.lap("small"):
        pass
    return "-"


def failure(meter: Meter) -> str:
    """Fail."""
    raise ValueError(f"planted, after {len(meter.laps)} laps")
