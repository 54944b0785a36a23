"""Lengths of time as they are typed, and as people read them."""

from __future__ import annotations

import re
from datetime import timedelta

from skewless.contract.errors import RequestError

_SPOKEN = (("day", 86_400_000_000), ("hour", 3_600_000_000), ("minute", 60_000_000), ("second", 1_000_000))
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_length(text: str) -> int:
    """Return a length of time in microseconds.

    Raises:
        RequestError: it is none, or zero.

    >>> parse_length("2h")
    7200000000
    """
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhdw])", text)
    if found is None:
        raise RequestError(
            "length of time", "is none", value=text, fix="give a number with s, m, h, d or w, such as 7d"
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) // timedelta(microseconds=1)


def length_text(us: int) -> str:
    """Return a length of time in microseconds as people say it; different lengths never read alike.

    >>> length_text(7 * 86_400_000_000), length_text(5_400_000_000), length_text(1_000_250), length_text(0)
    ('7 days', '1 hour 30 minutes', '1 second 250 us', '0 seconds')
    """
    parts, rest = [], abs(us)
    for unit, length in _SPOKEN:
        n, rest = divmod(rest, length)
        parts += [f"{n:,} {unit}{'' if n == 1 else 's'}"] if n else []
    parts += [f"{rest:,} us"] if rest else []
    return ("minus " if us < 0 else "") + (" ".join(parts) or "0 seconds")
