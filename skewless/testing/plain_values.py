"""Values of a test as the product takes them from JSON, and as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np

from skewless.contract.clock import from_us, parse_time, to_us
from skewless.contract.errors import DefinitionError

TimeValue: TypeAlias = datetime | str | int


def time_us(thing: str, value: TimeValue) -> int:
    """Return a time as microseconds since 1970; a time without a zone is UTC.

    >>> time_us("at", "1970-01-01T00:00:01Z")
    1000000

    Raises:
        DefinitionError: it is not a time.
    """
    if isinstance(value, datetime):
        return to_us(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    parsed = parse_time(value) if isinstance(value, str) else None
    if parsed is None:
        raise DefinitionError(thing, "is not a time", value=value, fix="write it as 2026-01-31T12:00:00Z")
    return parsed[0]


def json_value(value: object) -> object:
    """Return a value as JSON could bring it: times as microseconds, numbers of numpy as Python's."""
    if isinstance(value, datetime):
        return to_us(value)
    return value.item() if isinstance(value, np.generic) else value


def json_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose values are as JSON could bring them."""
    return {name: json_value(value) for name, value in row.items()}


def time_text(moment_us: int) -> str:
    """Return a time as a person reads it.

    >>> time_text(1_500_000)
    '1970-01-01T00:00:01.500000Z'
    """
    return from_us(moment_us).isoformat().replace("+00:00", "Z")


def row_text(row: Mapping[str, Any]) -> str:
    """Return the values of a row in one line.

    >>> row_text({"card": 7, "amount": None})
    'card=7 amount=null'
    """
    return " ".join(f"{name}={'null' if value is None else value}" for name, value in row.items())
