"""Time in the test's hand."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SecondsClock:
    """Seconds that pass when a test lets them."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now
