"""What a model's package says of the values it may meet: plain, frozen, compiled from the suites of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Value = str | float


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What values of one column are inside.

    Args:
        low: the least; None: no limit.
        high: the greatest; None: no limit.
        allowed: the only ones, sorted; None: any.
        nullable: whether a null is.
    """

    low: float | None = None
    high: float | None = None
    allowed: tuple[Value, ...] | None = None
    nullable: bool = True

    @property
    def is_open(self) -> bool:
        """Say whether every value is inside."""
        return self.low is None and self.high is None and self.allowed is None and self.nullable

    def within(self, other: Bound) -> Bound:
        """Return the bound of what is inside of both.

        >>> Bound(low=0.0).within(Bound(low=-1.0, high=9.0, nullable=False))
        Bound(low=0.0, high=9.0, allowed=None, nullable=False)
        """
        sets = [set(bound.allowed) for bound in (self, other) if bound.allowed is not None]
        lows = [bound.low for bound in (self, other) if bound.low is not None]
        highs = [bound.high for bound in (self, other) if bound.high is not None]
        return Bound(
            low=max(lows, default=None),
            high=min(highs, default=None),
            allowed=tuple(sorted(set.intersection(*sets), key=_order)) if sets else None,
            nullable=self.nullable and other.nullable,
        )

    def holds(self, value: object) -> bool:
        """Say whether a value is inside; None and NaN are null.

        >>> [Bound(low=0.0, high=1.0).holds(value) for value in (0.5, 2.0, None)]
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

    def sentence(self) -> str:
        """Return what is wanted, in words.

        >>> Bound(low=0.0, high=1.0, nullable=False).sentence(), Bound(allowed=("EWR", "JFK")).sentence()
        ('a value, from 0 to 1', "one of 'EWR', 'JFK'")
        """
        parts = [] if self.nullable else ["a value"]
        if self.allowed is not None:
            parts.append(f"one of {', '.join(map(_shown, self.allowed))}")
        limits = [f"{word} {limit:g}" for word, limit in (("from", self.low), ("to", self.high)) if limit is not None]
        return ", ".join([*parts, *([" ".join(limits)] if limits else [])])


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The bounds of one model.

    Args:
        features: by the label of a column of the vector.
        fields: by the name of a key or request field.
    """

    features: Mapping[str, Bound] = field(default_factory=dict)
    fields: Mapping[str, Bound] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Bounds:
        """Build bounds from what ``as_dict`` returned, or from nothing."""
        return cls(**{part: {name: _bound(item) for name, item in found.items()} for part, found in data.items()})


def _bound(data: Mapping[str, Any]) -> Bound:
    allowed = data["allowed"]
    return Bound(**{**data, "allowed": None if allowed is None else tuple(allowed)})


def _order(value: Value) -> tuple[bool, Value]:
    return isinstance(value, str), value


def _shown(value: Value) -> str:
    return repr(value) if isinstance(value, str) else f"{value:g}"
