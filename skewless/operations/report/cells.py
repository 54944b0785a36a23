"""Values as the report's tables show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from skewless.contract.clock import from_us

NONE = "-"
_MOST_FACTS = 8


def number(value: float | None) -> str:
    """Return a number with four digits that mean something.

    >>> number(0.123456), number(12345.6), number(None)
    ('0.1235', '1.235e+04', '-')
    """
    return NONE if value is None else f"{value:.4g}"


def share(value: float | None) -> str:
    """Return a share as percent.

    >>> share(0.015)
    '1.5 %'
    """
    return NONE if value is None else f"{100 * value:.4g} %"


def interval(bounds: Sequence[float] | None) -> str:
    """Return both ends of an interval.

    >>> interval((0.61, 0.7)), interval(None)
    ('0.61 to 0.7', '-')
    """
    return NONE if bounds is None else f"{number(bounds[0])} to {number(bounds[1])}"


def moment(value: int | str | None) -> str:
    """Return a time to the second, without its zone, which is UTC.

    >>> moment(1_768_478_400_000_000), moment("2026-01-15T12:00:00+00:00")
    ('2026-01-15 12:00:00', '2026-01-15 12:00:00')
    """
    if value is None:
        return NONE
    time = datetime.fromisoformat(value) if isinstance(value, str) else from_us(value)
    return f"{time:%Y-%m-%d %H:%M:%S}"


def milliseconds(seconds: float | None) -> str:
    """Return seconds as milliseconds.

    >>> milliseconds(0.0016818)
    '1.682 ms'
    """
    return NONE if seconds is None else f"{number(1e3 * seconds)} ms"


def length(us: int | None) -> str:
    """Return a length of time.

    >>> length(5_400_000_000)
    '1:30:00'
    """
    return NONE if us is None else str(timedelta(seconds=round(us / 1e6)))


def figures(facts: Mapping[str, object]) -> str:
    """Return plain values in a line; what is nested is named by its path, and what is not known is left out.

    >>> figures({"gain": {"low": 0.0123456, "high": None}, "base_rate": 0.3, "is_new": True})
    'gain low 0.01235, base rate 0.3, is new yes'
    """
    found = _flat(facts)
    more = f", and {len(found) - _MOST_FACTS} more" if len(found) > _MOST_FACTS else ""
    return ", ".join(found[:_MOST_FACTS]) + more


def _flat(facts: Mapping[str, object], above: str = "") -> list[str]:
    found: list[str] = []
    for name, value in facts.items():
        words = f"{above}{name.replace('_', ' ')} "
        if isinstance(value, Mapping):
            found += _flat(value, words)
        elif value is not None:
            found.append(f"{words}{_fact(value)}")
    return found


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return " and ".join(map(_fact, value))
    return number(value) if isinstance(value, float) else str(value)
