"""Which bound of a model's features a vector breaks, or comes nearest to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Bounds = Mapping[str, tuple[float | None, float | None]]
"""Feature -> lowest and highest value allowed; None: no limit on that side."""


@dataclass(frozen=True, kw_only=True)
class NearestBound:
    """One side of one feature's bounds, and how a value lies to it.

    Args:
        slack: distance from the value to the bound as a share of the feature's spread; below 0: it is broken.
    """

    feature: str
    side: Literal["low", "high"]
    bound: float
    value: float
    slack: float

    @property
    def broken(self) -> bool:
        """Say whether the value lies outside."""
        return self.slack < 0

    def line(self) -> str:
        """Return it in a sentence."""
        where = "outside" if self.broken else "inside"
        return (
            f"{self.feature} = {self.value:g} lies {where} its {self.side} bound {self.bound:g},"
            f" by {abs(self.slack):.1%} of its spread"
        )


def nearest_bound(bounds: Bounds, values: Mapping[str, float], spreads: Mapping[str, float]) -> NearestBound | None:
    """Return the bound with the least slack, the most broken one first; None where nothing is bounded.

    Args:
        bounds: by feature.
        values: of one vector; NaN is missing, and near to nothing.
        spreads: by feature, what its values differ by (highest less lowest); of those left out, the bounds' own.

    >>> found = nearest_bound({"x": (0.0, 10.0), "y": (None, 5.0)}, {"x": 9.0, "y": 6.0}, {"y": 4.0})
    >>> found.feature, found.side, found.slack
    ('y', 'high', -0.25)
    """
    found = [
        NearestBound(feature=name, side=side, bound=bound, value=values[name], slack=gap / _spread(spreads, name, pair))
        for name, pair in bounds.items()
        if not math.isnan(values.get(name, math.nan))
        for side, bound, gap in _sides(pair, values[name])
    ]
    return min(found, key=lambda item: item.slack, default=None)


def _sides(pair: tuple[float | None, float | None], value: float) -> list[tuple[Literal["low", "high"], float, float]]:
    low, high = pair
    sides: list[tuple[Literal["low", "high"], float, float]] = []
    if low is not None:
        sides.append(("low", low, value - low))
    if high is not None:
        sides.append(("high", high, high - value))
    return sides


def _spread(spreads: Mapping[str, float], name: str, pair: tuple[float | None, float | None]) -> float:
    """Return what distances of a feature are measured in, above zero."""
    low, high = pair
    if spreads.get(name, 0.0) > 0:
        return spreads[name]
    if low is not None and high is not None and high > low:
        return high - low
    return max(abs(low or 0.0), abs(high or 0.0)) or 1.0
