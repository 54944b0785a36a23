"""Values and records as programs read them: JSON values, with durations in microseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import timedelta
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PlainRecord:
    """A frozen dataclass whose fields, and those of the dataclasses in it, are JSON values."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def plain_value(value: object) -> object:
    """Return a value of dataclasses, mappings, sequences and durations as plain JSON values.

    >>> plain_value({1: (timedelta(seconds=1), "a")})
    {'1': [1000000, 'a']}
    """
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    if is_dataclass(value) and not isinstance(value, type):
        return plain_value(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain_value(item) for name, item in value.items()}
    return [plain_value(item) for item in value] if isinstance(value, list | tuple) else value
