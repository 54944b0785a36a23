"""Render values from outside in errors, replies and log lines, always as text of bounded length."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from itertools import islice
from typing import Any

_MOST_CHARS = 200
_MOST_BITS = 512
_GAP = "..."
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s'\"/,;:()]+/)+")


def render_value(value: object) -> str:
    """Return the ``repr`` of a value, shortened in the middle if it is long or nested deeply.

    >>> render_value([1, "two", None])
    "[1, 'two', None]"
    >>> len(render_value("x" * 1_000_000)), len(render_value([["x" * 1_000] * 1_000] * 1_000))
    (200, 200)
    """
    return shorten(_BOUNDED.repr(value), _MOST_CHARS)


def shorten(text: str, max_chars: int = _MOST_CHARS) -> str:
    r"""Return a text shortened in the middle to ``max_chars`` characters; the result can be encoded as UTF-8.

    >>> shorten("abcdefghij", 7)
    'ab...ij'
    >>> shorten("a\ud800")
    'a\\ud800'
    """
    if len(text) > max_chars:
        head = (max_chars - len(_GAP)) // 2
        text = text[:head] + _GAP + text[head + len(_GAP) - max_chars :]
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def hide_paths(text: str) -> str:
    """Return a text without the folders of absolute paths: network clients must not see them.

    >>> hide_paths("make room below /srv/p/.skewless/outcomes, or see http://host/a/b")
    'make room below .../outcomes, or see http://host/a/b'
    """
    return _FOLDERS.sub(f"{_GAP}/", text) if "/" in text else text


class _Bounded(reprlib.Repr):
    """A ``repr`` that reads only the part of a value that it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = _MOST_CHARS

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        # The base class sorts all keys, however many there are.
        return super().repr_dict(dict(islice(x.items(), self.maxdict + 1)), level)

    def repr_bytes(self, x: bytes, level: int) -> str:
        return self.repr_instance(x[: self.maxother], level)

    def repr_int(self, x: int, level: int) -> str:
        # Python raises an error for the digits of long integers.
        return super().repr_int(x, level) if x.bit_length() <= _MOST_BITS else f"<integer of {x.bit_length()} bits>"


_BOUNDED = _Bounded()


def count_text(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun in the singular or plural.

    Args:
        plural: of a noun that needs more than an "s".

    >>> count_text(1, "key"), count_text(1_200, "key"), count_text(2, "entity", "entities")
    ('1 key', '1,200 keys', '2 entities')
    """
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def json_number(value: float) -> float | str | None:
    """Return a float as a JSON value: NaN, which is a missing value here, as null, infinities as text.

    >>> [json_number(float(text)) for text in ("1.5", "nan", "inf", "-inf")]
    [1.5, None, 'Infinity', '-Infinity']
    """
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return None
    return "Infinity" if value > 0 else "-Infinity"
