"""Parse and write the tags of events: their columns, which a file's schema may declare, names, durations, dates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import pyarrow as pa

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.infra.definitions.compiler.views import check_case

# Our type names, Feast's in lower case, and Spark's: a declaration may be copied from either.
_SPELLINGS = {
    **{dtype.value: dtype for dtype in DType},
    "double": DType.FLOAT64,
    "float": DType.FLOAT32,
    "bigint": DType.INT64,
    "long": DType.INT64,
    "int": DType.INT32,
    "integer": DType.INT32,
    "boolean": DType.BOOL,
    "unixtimestamp": DType.TIMESTAMP,
}
_SMALL = frozenset({pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32()})
_FILE_TYPES = (
    # In this order: a float64 is also a floating number.
    (pa.types.is_string, DType.STRING),
    (pa.types.is_large_string, DType.STRING),
    (pa.types.is_boolean, DType.BOOL),
    (pa.types.is_timestamp, DType.TIMESTAMP),
    (pa.types.is_date, DType.TIMESTAMP),
    (pa.types.is_float64, DType.FLOAT64),
    (pa.types.is_floating, DType.FLOAT32),
    (lambda kind: kind in _SMALL, DType.INT32),
    (lambda kind: kind in {pa.uint32(), pa.int64()}, DType.INT64),
)
_COLUMN = re.compile(r"(?:`(?P<quoted>[^`]+)`|(?P<plain>[^\s:`]+))\s*[:\s]\s*(?P<type>\S.*)")
_COMMA = re.compile(r",(?![^(<]*[)>])")  # but not a comma in decimal(10,2) or map<a,b>
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


def parse_columns(owner: str, text: str) -> tuple[Column, ...]:
    """Return the columns of a declaration such as ``carrier string, arr_delay float64``.

    >>> parse_columns("source 's'", "a double, `odd name` bigint")[1].name
    'odd name'

    Raises:
        DefinitionError: a part is not a column, its type is unknown or bytes, or two names are equal.
    """
    columns = tuple(_parse_column(owner, part.strip()) for part in _COMMA.split(text))
    names = [column.name for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(owner, "declares a column twice", value=name, fix="declare it once")
    check_case(owner, names)
    return columns


def parse_names(text: str) -> list[str]:
    """Return the names of a list such as ``a, b``.

    >>> parse_names("a, b,")
    ['a', 'b']
    """
    return [part.strip() for part in text.split(",") if part.strip()]


def read_file_columns(schema: pa.Schema, without: Sequence[str | None]) -> tuple[Column, ...]:
    """Return the columns of a file with types that JSON events can have.

    Args:
        without: names to skip.
    """
    types = ((field.name, _dtype(field.type)) for field in schema if field.name not in without)
    return tuple(Column(name=name, dtype=dtype) for name, dtype in types if dtype is not None)


def check_columns_exist(owner: str, columns: Mapping[str, DType], names: Sequence[str]) -> None:
    """Check that the named columns are declared.

    Raises:
        DefinitionError: a column is not declared.
    """
    for name in names:
        if name not in columns:
            raise DefinitionError(
                owner,
                "names a column that events do not have",
                value=name,
                fix=f"declare the column, or use one of {', '.join(columns)}",
            )


def _parse_column(owner: str, text: str) -> Column:
    match = _COLUMN.fullmatch(text)
    if match is None:
        raise DefinitionError(owner, "declares an invalid column", value=text, fix='write "name type, name type"')
    name, kind = match["quoted"] or match["plain"], match["type"].strip()
    dtype = _SPELLINGS.get(kind.lower())
    if dtype is None or dtype is DType.BYTES:
        known = ", ".join(item.value for item in DType if item is not DType.BYTES)
        raise DefinitionError(
            f"{owner} column {name!r}", "has a type that events cannot have", value=kind, fix=f"use one of {known}"
        )
    if name.startswith("__"):
        raise DefinitionError(
            f"{owner} column", "has a reserved name", value=name, fix="do not begin names with two underscores"
        )
    return Column(name=name, dtype=dtype)


def _dtype(kind: pa.DataType) -> DType | None:
    if pa.types.is_dictionary(kind):
        return _dtype(kind.value_type)
    return next((dtype for fits, dtype in _FILE_TYPES if fits(kind)), None)


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
