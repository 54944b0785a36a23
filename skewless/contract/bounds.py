"""Bounds of a model's input values: plain, frozen data in its package, compiled from the suites of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skewless.contract.plain_record import PlainRecord

Value = str | float


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The allowed values of one column.

    Args:
        low: least allowed value; None: no limit.
        high: greatest allowed value; None: no limit.
        allowed: the allowed values, sorted; None: any value.
        nullable: whether null is allowed.
    """

    low: float | None = None
    high: float | None = None
    allowed: tuple[Value, ...] | None = None
    nullable: bool = True

    @property
    def is_open(self) -> bool:
        """Say whether the bound allows every value."""
        return self.low is None and self.high is None and self.allowed is None and self.nullable

    def intersect(self, other: Bound) -> Bound:
        """Return the bound that allows a value only if both bounds allow it.

        >>> Bound(low=0.0).intersect(Bound(low=-1.0, high=9.0, nullable=False))
        Bound(low=0.0, high=9.0, allowed=None, nullable=False)
        """
        sets = [set(bound.allowed) for bound in (self, other) if bound.allowed is not None]
        lows = [bound.low for bound in (self, other) if bound.low is not None]
        highs = [bound.high for bound in (self, other) if bound.high is not None]
        return Bound(
            low=max(lows, default=None),
            high=min(highs, default=None),
            allowed=tuple(sorted(set.intersection(*sets), key=_sort_key)) if sets else None,
            nullable=self.nullable and other.nullable,
        )

    def contains(self, value: object) -> bool:
        """Say whether the bound allows a value; None and NaN are null.

        >>> [Bound(low=0.0, high=1.0).contains(value) for value in (0.5, 2.0, None)]
        [True, False, True]
        """
        if value is None or value != value:  # noqa: PLR0124 - NaN
            return self.nullable
        if self.allowed is not None and value not in self.allowed:
            return False
        if isinstance(value, str | bytes):
            return True
        number: Any = value
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)

    def describe(self) -> str:
        """Return the allowed values in words.

        >>> Bound(low=0.0, high=1.0, nullable=False).describe(), Bound(allowed=("EWR", "JFK")).describe()
        ('a value, from 0 to 1', "one of 'EWR', 'JFK'")
        """
        parts = [] if self.nullable else ["a value"]
        if self.allowed is not None:
            parts.append(f"one of {', '.join(map(_format_value, self.allowed))}")
        limits = [f"{word} {limit:g}" for word, limit in (("from", self.low), ("to", self.high)) if limit is not None]
        return ", ".join([*parts, *([" ".join(limits)] if limits else [])])


@dataclass(frozen=True, kw_only=True)
class Bounds(PlainRecord):
    """The bounds of one model.

    Args:
        features: label of a vector column -> its bound.
        fields: name of a key or request field -> its bound.
    """

    features: Mapping[str, Bound] = field(default_factory=dict)
    fields: Mapping[str, Bound] = field(default_factory=dict)


def _sort_key(value: Value) -> tuple[bool, Value]:
    return isinstance(value, str), value


def _format_value(value: Value) -> str:
    return repr(value) if isinstance(value, str) else f"{value:g}"
