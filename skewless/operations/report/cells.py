"""Values as the report's tables show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skewless.contract.readable import duration_text, time_text

NONE = "-"
GUARDRAIL_COLUMNS = ("guardrail", "champion", "challenger", "worse by at least", "limit", "outcome")
BREACHED, HELD, OPEN = "BREACHED", "held", "not decided yet"
_Show = Callable[[float | None], str]
_MOST_FACTS = 8


def number(value: float | None) -> str:
    """Return a number with four significant digits.

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


def time(value: int | str | None) -> str:
    """Return a time in UTC to the second.

    >>> time(1_768_478_400_000_000), time(None)
    ('2026-01-15 12:00:00Z', '-')
    """
    return time_text(value) or NONE


def milliseconds(seconds: float | None) -> str:
    """Return seconds as milliseconds.

    >>> milliseconds(0.0016818)
    '1.682 ms'
    """
    return NONE if seconds is None else f"{number(1e3 * seconds)} ms"


def duration(us: int | None) -> str:
    """Return a duration, given in microseconds.

    >>> duration(5_400_000_000)
    '1 h 30 min'
    """
    return NONE if us is None else duration_text(us / 1e6)


def figures(facts: Mapping[str, object]) -> str:
    """Return plain values in a line; nested values have their path as name, and nulls are skipped.

    >>> figures({"gain": {"low": 0.0123456, "high": None}, "base_rate": 0.3, "is_new": True})
    'gain low 0.01235, base rate 0.3, is new yes'
    """
    texts = _flat(facts)
    more = f", and {len(texts) - _MOST_FACTS} more" if len(texts) > _MOST_FACTS else ""
    return ", ".join(texts[:_MOST_FACTS]) + more


def guardrail_cells(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the verdict of a guardrail, ``Verdict.as_dict``, as a row of ``GUARDRAIL_COLUMNS``."""
    name, least = str(verdict["guardrail"]), verdict["least"]
    arm, difference = _units(name)
    outcome = BREACHED if verdict["breached"] else OPEN if least is None else HELD
    arms = (arm(verdict["champion"]), arm(verdict["challenger"]))
    return name, *arms, difference(least), difference(verdict["limit"]), outcome


def _units(guardrail: str) -> tuple[_Show, _Show]:
    """Return the formats of an arm's number, and of a difference between arms."""
    if guardrail in {"errors", "missing"}:
        return share, share
    return (milliseconds, _times) if guardrail.startswith("latency") else (number, number)


def _times(ratio: float | None) -> str:
    return number(ratio) if ratio is None else f"{number(ratio)} times"


def _flat(facts: Mapping[str, object], above: str = "") -> list[str]:
    texts: list[str] = []
    for name, value in facts.items():
        words = f"{above}{name.replace('_', ' ')} "
        if isinstance(value, Mapping):
            texts += _flat(value, words)
        elif value is not None:
            texts.append(f"{words}{_fact(value)}")
    return texts


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return " and ".join(map(_fact, value))
    return number(value) if isinstance(value, float) else str(value)
