"""Pure functions that build SQL text; they quote names, and the caller binds values."""

from __future__ import annotations

from collections.abc import Iterable

from skewless.contract.dtypes import DType

_FLOATS = frozenset({"FLOAT", "DOUBLE"})
_SMALL = frozenset({"BOOLEAN", "TINYINT", "SMALLINT", "UTINYINT", "USMALLINT"})
_LONG = frozenset({"BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT"})
_INTEGERS = _LONG | {"INTEGER", "UINTEGER"}


def quote(name: str) -> str:
    """Return an identifier in quotes.

    >>> quote('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def sql_literal(value: str) -> str:
    """Return a text as a SQL literal, for positions that cannot have a parameter.

    >>> sql_literal("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


def quote_all(columns: Iterable[str], prefix: str = "") -> str:
    """Return a list of quoted identifiers.

    >>> quote_all(["a", "b"], "t.")
    't."a", t."b"'
    """
    return ", ".join(prefix + quote(column) for column in columns)


def same_keys_sql(columns: Iterable[str], left: str, right: str) -> str:
    """Return the condition that two rows have the same, non-null key.

    >>> same_keys_sql(["k"], "l", "r")
    'l."k" = r."k"'
    """
    return " AND ".join(f"{left}.{quote(column)} = {right}.{quote(column)}" for column in columns)


def to_microseconds(expression: str, from_type: str = "") -> str:
    """Return SQL of a time or date column as int64 microseconds; naive times are UTC, nanoseconds are floored.

    Args:
        expression: the quoted column.
        from_type: DuckDB's name of its type; required for ``TIMESTAMP_NS``, faster for all others.

    >>> to_microseconds("t", "TIMESTAMP WITH TIME ZONE")
    'epoch_us(t)'
    >>> to_microseconds("t", "TIMESTAMP_NS")
    '((epoch_ns(t) - ((epoch_ns(t) % 1000) + 1000) % 1000) // 1000)'
    """
    if from_type in {"TIMESTAMP", "TIMESTAMP WITH TIME ZONE"}:
        return f"epoch_us({expression})"
    if from_type in {"TIMESTAMP_NS", "TIMESTAMPTZ_NS"}:
        nanoseconds = f"epoch_ns({expression})"
        return f"(({nanoseconds} - (({nanoseconds} % 1000) + 1000) % 1000) // 1000)"
    # DuckDB's cast rounds, so an event could get a later time than its own. date_trunc would take 50 times longer.
    time = f"CAST({expression} AS TIMESTAMPTZ)"
    return f"(epoch_us({time}) - CAST({time} > {expression} AS BIGINT))"


def cast_sql(expression: str, from_type: str, dtype: DType) -> str:
    """Return SQL of a source column in the plan's type; null if the value does not fit.

    Args:
        expression: the quoted column.
        from_type: DuckDB's name of the column's type.
        dtype: the declared type.
    """
    if dtype is DType.TIMESTAMP:
        return to_microseconds(expression, from_type)
    decimal = from_type.startswith("DECIMAL")
    if dtype in {DType.INT32, DType.INT64} and (decimal or from_type in _FLOATS):
        return f"CASE WHEN {expression} = trunc({expression}) THEN TRY_CAST({expression} AS {dtype.sql}) END"
    if dtype in {DType.FLOAT32, DType.FLOAT64} and (decimal or from_type in _LONG):
        # Parse the digits, which rounds once to the nearest float64, as Python does. DuckDB would divide two numbers.
        nearest = f"CAST(CAST({expression} AS VARCHAR) AS DOUBLE)"
        return nearest if dtype is DType.FLOAT64 else f"TRY_CAST({nearest} AS FLOAT)"
    if dtype is DType.STRING and from_type == "BOOLEAN":
        return f"CASE {expression} WHEN true THEN 'True' WHEN false THEN 'False' END"
    if from_type == dtype.sql:
        return expression
    return f"TRY_CAST({expression} AS {dtype.sql})"


def can_misfit(from_type: str, dtype: DType) -> bool:
    """Say whether ``cast_sql`` may find a value that does not fit.

    >>> can_misfit("DOUBLE", DType.INT64), can_misfit("FLOAT", DType.FLOAT64)
    (True, False)
    """
    if dtype in {DType.INT32, DType.INT64}:
        return from_type not in _SMALL | {dtype.sql} | ({"INTEGER", "UINTEGER"} if dtype is DType.INT64 else set())
    return dtype is DType.FLOAT32 and from_type != "FLOAT" and from_type not in _SMALL | _INTEGERS
