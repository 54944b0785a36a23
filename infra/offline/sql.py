"""SQL text, built by pure functions; names are quoted, values are bound by the caller."""

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


def text(value: str) -> str:
    """Return a text as a SQL literal, for the few places that take no parameter.

    >>> text("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


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


def to_microseconds(expression: str, from_type: str = "") -> str:
    """Return a time or date column as int64 microseconds; without a zone it is UTC, nanoseconds are floored.

    Args:
        expression: the quoted column.
        from_type: DuckDB's name of its type; needed for ``TIMESTAMP_NS``, faster for all others.

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
    # DuckDB's cast rounds, which would date an event after it happened; date_trunc would cost 50 times more.
    time = f"CAST({expression} AS TIMESTAMPTZ)"
    return f"(epoch_us({time}) - CAST({time} > {expression} AS BIGINT))"


def cast(expression: str, from_type: str, dtype: DType) -> str:
    """Return a source column as the plan's type; null where the value does not fit.

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
        # By its digits, once, to the nearest float64, as Python has it; DuckDB would divide two numbers.
        nearest = f"CAST(CAST({expression} AS VARCHAR) AS DOUBLE)"
        return nearest if dtype is DType.FLOAT64 else f"TRY_CAST({nearest} AS FLOAT)"
    if dtype is DType.STRING and from_type == "BOOLEAN":
        return f"CASE {expression} WHEN true THEN 'True' WHEN false THEN 'False' END"
    if from_type == dtype.sql:
        return expression
    return f"TRY_CAST({expression} AS {dtype.sql})"


def may_misfit(from_type: str, dtype: DType) -> bool:
    """Say whether ``cast`` may find a value that does not fit.

    >>> may_misfit("DOUBLE", DType.INT64), may_misfit("FLOAT", DType.FLOAT64)
    (True, False)
    """
    if dtype in {DType.INT32, DType.INT64}:
        return from_type not in _SMALL | {dtype.sql} | ({"INTEGER", "UINTEGER"} if dtype is DType.INT64 else set())
    return dtype is DType.FLOAT32 and from_type != "FLOAT" and from_type not in _SMALL | _INTEGERS
