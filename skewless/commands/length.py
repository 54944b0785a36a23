"""Durations of options and definitions: as users type them, and exactly as they are."""

from __future__ import annotations

import re
from datetime import timedelta

from skewless.contract.errors import RequestError
from skewless.operations.readable import UNITS_US

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_length(text: str) -> int:
    """Return a duration in microseconds.

    Raises:
        RequestError: the text is not a duration, or it is zero.

    >>> parse_length("2h")
    7200000000
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhdw])", text)
    if match is None:
        fix = "give a number with s, m, h, d or w, such as 7d"
        raise RequestError("duration", "is not valid", value=text, fix=fix)
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) // timedelta(microseconds=1)


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
