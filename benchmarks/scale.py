"""How large the works are: ``BENCH_SCALE=0.1`` for a trial, 1 for the results that are written down."""

from __future__ import annotations

import os


def scale() -> float:
    """Return the share of the full size; 1 by default."""
    return float(os.environ.get("BENCH_SCALE", "1"))


def scaled(n: int, least: int = 100) -> int:
    """Return a number of rows at the chosen scale, but not below ``least``."""
    return max(int(n * scale()), least)


def rounds(n: int) -> int:
    """Return how often contestants take turns, or laps are run: once in a trial of a hundredth or less."""
    return n if scale() > 0.01 else 1
