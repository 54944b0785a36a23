"""The text of a tag for a typed value: the inverse of the compiler's parsers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from skewless.contract.errors import DefinitionError
from skewless.infra.compiler.event_columns import parse_columns, parse_names

_MICROSECOND = timedelta(microseconds=1)
# Longest unit first: the text is as short as a person would write it.
_UNITS = (
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("m", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
    ("ms", timedelta(milliseconds=1)),
    ("us", _MICROSECOND),
)
_PLAIN = re.compile(r"\w+")


def duration_text(owner: str, length: timedelta) -> str:
    """Return the text of a length of time, in the longest unit that divides it.

    >>> duration_text("view 'v'", timedelta(hours=36))
    '36h'

    Raises:
        DefinitionError: it is not a timedelta, or below zero.
    """
    if not isinstance(length, timedelta):
        raise DefinitionError(owner, "is not a timedelta", value=length, fix="write it as timedelta(hours=1)")
    if length < timedelta(0):
        raise DefinitionError(owner, "is below zero", value=str(length), fix="give a length of 0 or more")
    if not length:
        return "0s"
    return next(f"{length // unit}{name}" for name, unit in _UNITS if not length % unit)


def date_text(owner: str, day: date) -> str:
    """Return the text of a date or datetime; a datetime without a zone is UTC.

    >>> date_text("source 's'", date(2024, 1, 31))
    '2024-01-31'

    Raises:
        DefinitionError: it is neither.
    """
    if not isinstance(day, date):
        raise DefinitionError(owner, "is not a date or datetime", value=day, fix="write it as date(2024, 1, 31)")
    return day.isoformat()


def columns_text(owner: str, columns: Mapping[str, str]) -> str:
    """Return the declaration of columns; names that are not words are quoted.

    >>> columns_text("source 's'", {"carrier": "string", "odd name": "int64"})
    'carrier string, `odd name` int64'

    Raises:
        DefinitionError: a type is unknown, or a name has a comma or a backtick, which a tag cannot hold.
    """
    text = ", ".join(f"{name if _PLAIN.fullmatch(name) else f'`{name}`'} {kind}" for name, kind in columns.items())
    _refuse_separators(owner, list(columns), ",`")
    if [column.name for column in parse_columns(owner, text)] != list(columns):
        raise DefinitionError(owner, "has a type with a comma", value=text, fix='write {"name": "type"}')
    return text


def names_text(owner: str, names: Sequence[str]) -> str:
    """Return the list of names.

    >>> names_text("view 'v'", ["a", "b"])
    'a, b'

    Raises:
        DefinitionError: a name has a comma or outer spaces, which a tag cannot hold.
    """
    if isinstance(names, str):
        raise DefinitionError(
            owner, "is a text instead of a list", value=names, fix=f"write it as {parse_names(names)}"
        )
    _refuse_separators(owner, names, ",")
    return ", ".join(names)


def _refuse_separators(owner: str, names: Sequence[str], separators: str) -> None:
    for name in names:
        if not name.strip() or name != name.strip() or any(character in name for character in separators):
            raise DefinitionError(
                owner,
                "has a name that is empty or has a comma, a backtick or outer spaces",
                value=name,
                fix="rename the column",
            )
