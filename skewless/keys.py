"""Entity keys: from JSON or a column to the bytes that name a row in Redis (SEMANTICS 1.5)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from skewless.dtypes import DType
from skewless.errors import RequestError
from skewless.plan import Column, View

KeyValue = int | str
KEY_DTYPES = frozenset({DType.INT32, DType.INT64, DType.STRING})

_RANGE = {DType.INT32: 2**31, DType.INT64: 2**63}
_RESERVED = re.compile(rb"[%{}|]")
_INTEGER = re.compile(r"-?[0-9]{1,19}\Z", re.ASCII)


def parse_key(column: Column, value: object) -> KeyValue | None:
    """Return a key of the declared type from a JSON value; null stays None and finds nothing.

    ``1`` and ``"1"`` are the same integer key; ``1.0`` and ``true`` are refused, strings are kept
    byte for byte.

    >>> parse_key(Column(name="id", dtype=DType.INT64), "9007199254740993")
    9007199254740993

    Raises:
        RequestError: the value has another type or is out of range.
    """
    if value is None:
        return None
    if column.dtype is DType.STRING:
        return _text(column, value)
    return _integer(column, value)


def _text(column: Column, value: object) -> str:
    if not isinstance(value, str):
        raise RequestError(f"key {column.name!r}", "is not a string", value=value, fix="send a JSON string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError(
            f"key {column.name!r}", "is not valid Unicode", value=ascii(value), fix="send well-formed text"
        ) from None
    return value


def _integer(column: Column, value: object) -> int:
    if isinstance(value, str) and _INTEGER.match(value):
        value = int(value)
    if type(value) is not int:
        raise RequestError(
            f"key {column.name!r}",
            "is not an integer",
            value=value,
            fix=f"send a JSON integer, or its digits as a string ({column.dtype})",
        )
    limit = _RANGE[column.dtype]
    if not -limit <= value < limit:
        raise RequestError(
            f"key {column.name!r}", f"does not fit {column.dtype}", value=str(value), fix="send a key in range"
        )
    return value


class KeyCodec:
    """Names the rows of one view in Redis: ``sk:PROJECT:VIEW_HASH:{entities|values}``.

    The braces are the hash tag, so that all views of one entity lie on one shard of a cluster.
    """

    def __init__(self, project: str, view: View) -> None:
        self._names = tuple(column.name for column in view.keys)
        tag = "+".join(self._names)
        self._prefix = f"sk:{project}:{view.hash}:".encode() + b"{" + _escape(tag)

    def encode(self, values: Sequence[KeyValue | None]) -> bytes | None:
        """Return the Redis key of one entity, or None if any part of its key is null."""
        parts = [self._prefix]
        for value in values:
            if value is None:
                return None
            parts.append(_escape(value) if isinstance(value, str) else b"%d" % value)
        return b"|".join(parts) + b"}"

    def encode_columns(self, columns: Mapping[str, Sequence[KeyValue | None]]) -> list[bytes | None]:
        """Return the Redis key of each row of parallel key columns."""
        rows = zip(*(columns[name] for name in self._names), strict=True)
        return [self.encode(row) for row in rows]


def _escape(text: str) -> bytes:
    return _RESERVED.sub(lambda match: b"%%%02X" % match[0][0], text.encode())


def marker_key(project: str, view: View) -> str:
    """Return the Redis key under which a view's applied log position is kept."""
    return f"sk:{project}:{view.hash}:applied"
