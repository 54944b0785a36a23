"""Values as people read them, for the command line, alerts and pages: durations, times, numbers, facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from skewless.contract.clock import from_us

UNITS_US = (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000))
_SHORT_S = 9.95  # below, a decimal is shown
_NONE = "-"
_MOST_FACTS = 8
_Show = Callable[[float | None], str]


def duration_text(seconds: float) -> str:
    """Return a duration rounded to its two largest units.

    >>> [duration_text(seconds) for seconds in (273_600, 46_796, 125.2, 60, 42.3, 2.44, 0.35, 0)]
    ['3 d 4 h', '13 h', '2 min 5 s', '1 min', '42 s', '2.4 s', '350 ms', '0 s']
    """
    if seconds < 0:
        return f"-{duration_text(-seconds)}"
    if 0 < seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < _SHORT_S:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    smallest = next(us for (_, length_us), (_, us) in pairwise((*UNITS_US, UNITS_US[-1])) if seconds * 1e6 >= length_us)
    parts, rest = [], round(seconds * 1e6 / smallest) * smallest
    for unit, length_us in UNITS_US:
        n, rest = divmod(rest, length_us)
        parts.append(f"{n:,} {unit}" if n else "")
    first = next(i for i, part in enumerate(parts) if part)
    return " ".join(filter(None, parts[first : first + 2]))


def time_text(value: int | str | None) -> str | None:
    """Return a time in UTC to the second; null stays null.

    Args:
        value: microseconds since 1970, or ISO 8601; without a zone it is UTC.

    >>> time_text(1_768_478_400_123_456), time_text("2026-01-15T13:00:00.5+01:00"), time_text(None)
    ('2026-01-15 12:00:00Z', '2026-01-15 12:00:00Z', None)
    """
    if value is None:
        return None
    time = datetime.fromisoformat(value) if isinstance(value, str) else from_us(value)
    utc = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return f"{utc:%Y-%m-%d %H:%M:%S}Z"


def iso_text(at_us: int) -> str:
    """Return a time in ISO 8601, to the second."""
    return from_us(at_us).isoformat(timespec="seconds")


def length_text(us: int) -> str:
    """Return a duration in microseconds exactly: two texts differ if the durations differ.

    >>> length_text(7 * 86_400_000_000), length_text(5_400_000_000), length_text(1_000_250), length_text(0)
    ('7 d', '1 h 30 min', '1 s 250 us', '0 s')
    """
    parts, rest = [], abs(us)
    for unit, length_us in UNITS_US:
        n, rest = divmod(rest, length_us)
        parts += [f"{n:,} {unit}"] if n else []
    parts += [f"{rest:,} us"] if rest else []
    return ("minus " if us < 0 else "") + (" ".join(parts) or "0 s")


def number_text(value: float | None) -> str:
    """Return a number with four significant digits.

    >>> number_text(0.123456), number_text(12345.6), number_text(None)
    ('0.1235', '1.235e+04', '-')
    """
    return _NONE if value is None else f"{value:.4g}"


def share_text(value: float | None) -> str:
    """Return a share as percent.

    >>> share_text(0.015)
    '1.5 %'
    """
    return _NONE if value is None else f"{100 * value:.4g} %"


def facts_text(facts: Mapping[str, object]) -> str:
    """Return plain values in a line; nested values have their path as name, and nulls are skipped.

    >>> facts_text({"gain": {"low": 0.0123456, "high": None}, "base_rate": 0.3, "is_new": True})
    'gain low 0.01235, base rate 0.3, is new yes'
    """
    texts = _flat(facts)
    more = f", and {len(texts) - _MOST_FACTS} more" if len(texts) > _MOST_FACTS else ""
    return ", ".join(texts[:_MOST_FACTS]) + more


def guardrail_texts(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the verdict of a guardrail, ``Verdict.as_dict``, as texts.

    They are: its name, the champion, the challenger, the least difference, the limit, the outcome.
    """
    name, least = str(verdict["guardrail"]), verdict["least"]
    arm, difference = _units(name)
    outcome = "BREACHED" if verdict["breached"] else "not decided yet" if least is None else "held"
    arms = (arm(verdict["champion"]), arm(verdict["challenger"]))
    return name, *arms, difference(least), difference(verdict["limit"]), outcome


def _units(guardrail: str) -> tuple[_Show, _Show]:
    """Return the formats of an arm's number, and of a difference between arms."""
    if guardrail in {"errors", "missing"}:
        return share_text, share_text
    return (_milliseconds, _times) if guardrail.startswith("latency") else (number_text, number_text)


def _milliseconds(seconds: float | None) -> str:
    return _NONE if seconds is None else f"{number_text(1e3 * seconds)} ms"


def _times(ratio: float | None) -> str:
    return number_text(ratio) if ratio is None else f"{number_text(ratio)} times"


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
    return number_text(value) if isinstance(value, float) else str(value)
