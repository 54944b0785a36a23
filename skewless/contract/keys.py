"""Entity keys: from JSON values or columns to the keys of the online store (SEMANTICS 1.5)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pyarrow as pa

from skewless.contract.arrow_numbers import binary_scalar
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.plan import View
from skewless.contract.windows.view import WindowView

KeyValue = int | str
KEY_DTYPES = frozenset({DType.INT32, DType.INT64, DType.STRING})

_RANGE = {DType.INT32: 2**31, DType.INT64: 2**63}
_RESERVED = re.compile(rb"[%{}|]")
_ESCAPES = {byte: b"%%%02X" % byte[0] for byte in (b"%", b"{", b"}", b"|")}  # `%` first: the other escapes contain it
_MANY = 16  # texts from which on joining them is faster than a call for each
# `int` alone also accepts spaces, underscores and the digits of other scripts.
_INTEGER = re.compile(r"-?[0-9]{1,19}\Z", re.ASCII)


def parse_key(column: Column, value: object) -> KeyValue | None:
    """Return a key of the declared type from a JSON value; null is None and matches no row.

    ``1`` and ``"1"`` are the same integer key; ``1.0`` and ``true`` are rejected. Strings are not changed.

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
            f"key {column.name!r}", "is not valid Unicode", value=value, fix="send well-formed text"
        ) from None
    return value


def _integer(column: Column, value: object) -> int:
    if isinstance(value, str) and _INTEGER.match(value):
        value = int(value)
    # Not `isinstance`: a bool is an int in Python, but not a key (SEMANTICS 1.5).
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
            f"key {column.name!r}", f"does not fit {column.dtype}", value=value, fix="send a key in range"
        )
    return value


class KeyCodec:
    """Builds the online keys of one view's rows: ``sk:PROJECT:VIEW_HASH:{entities|values}``.

    The braces are the Redis hash tag, so that all views of one entity are on one shard of a cluster.

    Args:
        generation: of a windowed view's states; follows the hash: ``VIEW_HASH.GENERATION``.
    """

    def __init__(self, project: str, view: View | WindowView, generation: int | None = None) -> None:
        self._names = tuple(column.name for column in view.keys)
        tag = "+".join(self._names)
        life = "" if generation is None else f".{generation}"
        self._prefix = f"sk:{project}:{view.hash}{life}:".encode() + b"{" + _escape(tag)

    @property
    def prefix(self) -> bytes:
        """Return the common prefix of all keys."""
        return self._prefix

    @property
    def names(self) -> tuple[str, ...]:
        """Return the key columns."""
        return self._names

    def encode(self, values: Sequence[KeyValue | None]) -> bytes | None:
        """Return the key of one entity, or None if any part of its key is null."""
        parts = [part for part in map(_part_bytes, values) if part is not None]
        return b"".join((self._prefix, *parts, b"}")) if len(parts) == len(values) else None

    def encode_columns(self, columns: Mapping[str, Sequence[KeyValue | None]]) -> list[bytes | None]:
        """Return the key of each row of parallel key columns, None where any part is null."""
        prefix = self._prefix
        values = columns[self._names[0]]
        if len(self._names) == 1:
            kinds = set(map(type, values))
            if kinds == {int}:
                return [b"%b|%d}" % (prefix, value) for value in values]  # type: ignore[str-format]  # all are int
            if kinds == {str} and len(values) >= _MANY:
                text = "\0".join(values).encode()  # type: ignore[arg-type]  # all are str
                if text.count(b"\0") == len(values) - 1 and _RESERVED.search(text) is None:
                    start = prefix + b"|"
                    return [start + part + b"}" for part in text.split(b"\0")]
        parts = [[_part_bytes(value) for value in columns[name]] for name in self._names]
        if len(parts) == 1:
            return [None if part is None else prefix + part + b"}" for part in parts[0]]
        rows = zip(*parts, strict=True)
        return [None if None in row else b"".join((prefix, *row, b"}")) for row in rows]

    def pack(self, columns: Mapping[str, pa.Array]) -> pa.LargeBinaryArray:
        """Return what ``encode_columns`` returns, from Arrow columns of the declared types."""
        import pyarrow.compute as pc  # noqa: PLC0415 - a command that reads single keys does without Arrow

        # As in `encode`: the prefix, then a bar and a value for each key, then the closing brace.
        joined = join_keys(self._prefix, [columns[name] for name in self._names])
        return pc.binary_join_element_wise(joined, binary_scalar(b"}"), binary_scalar(b""))


def join_keys(prefix: bytes, columns: Sequence[pa.Array]) -> pa.LargeBinaryArray:
    """Return the canonical bytes of each row of key columns: the prefix, then a bar and a value for each key.

    Null where any part is null. The type of a column does not matter: 5 and ``"5"`` have the same bytes.
    """
    import pyarrow.compute as pc  # noqa: PLC0415 - as in pack

    return pc.binary_join_element_wise(binary_scalar(prefix), *map(_part, columns), binary_scalar(b"|"))


def _part(column: pa.Array) -> pa.Array:
    import pyarrow.compute as pc  # noqa: PLC0415 - as in pack

    if pa.types.is_integer(column.type):
        return column.cast(pa.large_string()).cast(pa.large_binary())
    part = column.cast(pa.large_binary())
    for byte, escape in _ESCAPES.items():
        if pc.any(pc.match_substring(part, byte.decode())).as_py():
            part = pc.replace_substring(part, byte.decode(), escape.decode())
    return part


def _part_bytes(value: KeyValue | None) -> bytes | None:
    if value is None:
        return None
    return b"|" + _escape(value) if isinstance(value, str) else b"|%d" % value


def _escape(text: str) -> bytes:
    return _RESERVED.sub(lambda match: b"%%%02X" % match[0][0], text.encode())


def marker_key(project: str, view: View) -> str:
    """Return the online key of a view's marker: the log position up to which its rows were applied."""
    return f"sk:{project}:{view.hash}:applied"


def window_marker(project: str, view: WindowView, generation: int, partition: str) -> str:
    """Return the online key of a marker: the position up to which a log partition was applied to states."""
    return f"sk:{project}:{view.hash}.{generation}:applied/{partition}"


def generation_key(project: str, view: WindowView) -> bytes:
    """Return the online key of the generation of a windowed view's states that readers use."""
    return f"sk:{project}:{view.hash}:generation".encode()
