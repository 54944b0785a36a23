"""The value types of keys, features and request fields."""

from __future__ import annotations

from enum import StrEnum


class DType(StrEnum):
    """A column's type. Timestamps are int64 microseconds since the epoch, UTC."""

    INT32 = "int32"
    INT64 = "int64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BOOL = "bool"
    STRING = "string"
    BYTES = "bytes"
    TIMESTAMP = "timestamp"

    @property
    def is_text(self) -> bool:
        """Say whether values have a variable length (string, bytes)."""
        return self in {DType.STRING, DType.BYTES}

    @property
    def numpy(self) -> str:
        """Return numpy's little-endian type code; text is object.

        >>> DType.TIMESTAMP.numpy
        '<i8'
        """
        return _NUMPY[self]

    @property
    def sql(self) -> str:
        """Return DuckDB's name of the type; a timestamp is BIGINT.

        >>> DType.STRING.sql
        'VARCHAR'
        """
        return _SQL[self]


_NUMPY = {
    DType.INT32: "<i4",
    DType.INT64: "<i8",
    DType.FLOAT32: "<f4",
    DType.FLOAT64: "<f8",
    DType.BOOL: "|b1",
    DType.STRING: "|O",
    DType.BYTES: "|O",
    DType.TIMESTAMP: "<i8",
}
_SQL = {
    DType.INT32: "INTEGER",
    DType.INT64: "BIGINT",
    DType.FLOAT32: "FLOAT",
    DType.FLOAT64: "DOUBLE",
    DType.BOOL: "BOOLEAN",
    DType.STRING: "VARCHAR",
    DType.BYTES: "BLOB",
    DType.TIMESTAMP: "BIGINT",
}
