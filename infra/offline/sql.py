"""SQL text, built by pure functions; names are quoted, values are bound by the caller."""

from __future__ import annotations

from collections.abc import Iterable

from skewless.dtypes import DType


def quote(name: str) -> str:
    """Return an identifier in quotes.

    >>> quote('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def names(columns: Iterable[str], prefix: str = "") -> str:
    """Return a list of quoted identifiers.

    >>> names(["a", "b"], "t.")
    't."a", t."b"'
    """
    return ", ".join(prefix + quote(column) for column in columns)


def same_keys(columns: Iterable[str], left: str, right: str) -> str:
    """Return the condition that two rows have the same, non-null key.

    >>> same_keys(["k"], "l", "r")
    'l."k" = r."k"'
    """
    return " AND ".join(f"{left}.{quote(column)} = {right}.{quote(column)}" for column in columns)


def to_microseconds(expression: str) -> str:
    """Return a time column as int64 microseconds, whatever its unit or zone."""
    return f"epoch_us(CAST({expression} AS TIMESTAMPTZ))"


def cast(expression: str, from_type: str, dtype: DType) -> str:
    """Return a source column as the plan's type; null where the value does not fit.

    Args:
        expression: the quoted column.
        from_type: DuckDB's name of the column's type.
        dtype: the declared type.
    """
    if dtype is DType.TIMESTAMP:
        return to_microseconds(expression)
    if dtype in {DType.INT32, DType.INT64} and from_type in {"DOUBLE", "FLOAT"}:
        return f"CASE WHEN {expression} = trunc({expression}) THEN TRY_CAST({expression} AS {dtype.sql}) END"
    if from_type == dtype.sql:
        return expression
    return f"TRY_CAST({expression} AS {dtype.sql})"
