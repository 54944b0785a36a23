"""The value types of keys, features and request fields."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class DType(StrEnum):
    """A column's type. Timestamps are int64 microseconds since the epoch, UTC.

    Attributes:
        numpy: numpy's little-endian type code; text is object.
        sql: DuckDB's name of the type; a timestamp is BIGINT.

    >>> DType.TIMESTAMP.numpy, DType.STRING.sql
    ('<i8', 'VARCHAR')
    """

    numpy: str
    sql: str

    INT32 = "int32", "<i4", "INTEGER"
    INT64 = "int64", "<i8", "BIGINT"
    FLOAT32 = "float32", "<f4", "FLOAT"
    FLOAT64 = "float64", "<f8", "DOUBLE"
    BOOL = "bool", "|b1", "BOOLEAN"
    STRING = "string", "|O", "VARCHAR"
    BYTES = "bytes", "|O", "BLOB"
    TIMESTAMP = "timestamp", "<i8", "BIGINT"

    def __new__(cls, name: str, numpy: str = "", sql: str = "") -> Self:
        """Return a member: its name in a plan, and the names of its type elsewhere."""
        member = str.__new__(cls, name)
        member._value_, member.numpy, member.sql = name, numpy, sql
        return member

    @property
    def is_text(self) -> bool:
        """Say whether values have a variable length (string, bytes)."""
        return self in {DType.STRING, DType.BYTES}
