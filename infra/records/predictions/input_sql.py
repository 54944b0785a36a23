"""SQL on the inputs of logged predictions: their keys and request fields, in the types of the plan."""

from __future__ import annotations

from collections.abc import Sequence

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.infra.reads.offline.sql import sql_literal


def key_sql(values: Sequence[str]) -> str:
    """Return an SQL expression for a text that is unique for each entity, nulls included."""
    # JSON tells the text 'null' from null, and keeps the parts of a key apart.
    return f"to_json([{', '.join(f'CAST({value} AS VARCHAR)' for value in values)}])::VARCHAR"


def json_field_sql(json: str, column: Column) -> str:
    """Return an SQL expression for a field of a JSON object in the plan's type; null if serving would reject it."""
    return number_sql(json_value_sql(json, column), column)


def json_value_sql(json: str, column: Column) -> str:
    """Return an SQL expression for a field of a JSON object, as serving parses it: -0.0 stays, and so do infinities."""
    path = sql_literal('$."' + column.name.replace('"', '\\"') + '"')
    value = f"json_extract_string({json}, {path})"
    if column.dtype is DType.TIMESTAMP:
        return f"coalesce(TRY_CAST({value} AS BIGINT), epoch_us(TRY_CAST({value} AS TIMESTAMPTZ)))"
    if column.dtype is DType.BYTES:
        return f"encode({value})"
    # Serving rounds once, from the double that the JSON number means; so does this.
    value = f"TRY_CAST({value} AS DOUBLE)" if column.dtype is DType.FLOAT32 else value
    return value if column.dtype.is_text else f"TRY_CAST({value} AS {column.dtype.sql})"


def number_sql(value: str, column: Column) -> str:
    """Return an SQL expression that maps -0.0 to 0.0, and NaN and infinities to null."""
    if column.dtype in {DType.FLOAT32, DType.FLOAT64}:
        return f"CASE WHEN isfinite({value}) THEN {value} + 0.0::{column.dtype.sql} END"
    return value
