"""Values as people read them, for the command line, alerts and pages: durations, times, numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

from skewless.contract.clock import from_us

UNITS_US = (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000))
_SHORT_S = 9.95  # below, a decimal is shown
_NONE = "-"


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
