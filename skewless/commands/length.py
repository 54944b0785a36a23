"""Lengths of time as they are typed."""

from __future__ import annotations

import re
from datetime import timedelta

from skewless.errors import RequestError

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
