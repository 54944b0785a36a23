"""Values that Feast would change silently in its messages, and keys that are compared in one type."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Number
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast.types import Array, Set

from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError, SourceError
from skewless.infra.definitions.compiler.views import to_dtype
from skewless.infra.reads.offline.source_columns import EXACT

_LIMITS = {DType.INT32: (-(2**31), 2**31 - 1), DType.INT64: (-(2**63), 2**63 - 1)}
_FLOAT32_END = 2.0**128 - 2.0**103  # from here on a number rounds to infinity
_FLOATS = frozenset({DType.FLOAT32, DType.FLOAT64})
INTEGER = "BIGINT"
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"}
_SQL_FLOATS = {"FLOAT", "DOUBLE"}
_NULL_TYPES = {'"NULL"', "NULL"}


def fit_values(owner: str, dtype: Any, values: list[Any]) -> list[Any]:  # noqa: ANN401 - Feast's types have no common one
    """Return values of a declared type that Feast's messages can represent.

    A null in a list of floats becomes NaN, and in a list of times it stays.

    Raises:
        SourceError: a number does not fit the declared type, or a list of another type contains a null.
    """
    plain = to_dtype(dtype)
    if plain in _LIMITS or plain is DType.FLOAT32:
        lost = [value for value in values if isinstance(value, Number) and not _fits(plain, value)]
        if lost:
            raise SourceError(
                owner,
                f"has a value that does not fit {plain}",
                value=lost[0],
                fix="correct the value, or declare a wider type",
            )
    if not isinstance(dtype, Array | Set):
        return values
    return [None if is_missing(value) else _fit_list(owner, dtype, value) for value in values]


def fit_lists(owner: str, dtype: Any, column: pa.ChunkedArray) -> pa.ChunkedArray:  # noqa: ANN401 - as above
    """Return a column of lists as ``fit_values``, in the type of the source; floats of Float32 are rounded to it."""
    leaf, kind = to_dtype(_leaf(dtype)), column.type
    if leaf in _FLOATS and not pa.types.is_floating(_leaf_type(kind)):
        kind = _with_leaf(kind, pa.float64())
    if any(part.null_count for part in _levels(column)):
        column = pa.chunked_array([pa.array(fit_values(owner, dtype, column.to_pylist()), kind)])
    return column.cast(_with_leaf(kind, pa.float32())).cast(kind) if leaf is DType.FLOAT32 else column


def is_missing(value: object) -> bool:
    """Say whether a value is a null of Python, pandas or numpy.

    >>> [is_missing(value) for value in (None, float("nan"), pd.NaT, 0, "")]
    [True, True, True, False, False]
    """
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _fits(dtype: DType, value: Any) -> bool:  # noqa: ANN401 - a number of any kind
    if value != value:  # noqa: PLR0124 - NaN, Feast's null
        return True
    if dtype is DType.FLOAT32:
        # Rounding to float32 is declared; a finite number that becomes infinite is another value.
        return math.isinf(value) or abs(value) < _FLOAT32_END
    low, high = _LIMITS[dtype]
    return not math.isinf(value) and value == int(value) and low <= value <= high


def _fit_list(owner: str, dtype: Any, items: Any) -> Any:  # noqa: ANN401 - a list of lists, or of values
    base, has_null = dtype.base_type, any(map(is_missing, items))
    leaf = to_dtype(base)
    if has_null and leaf in _FLOATS:
        # A NaN keeps its bits.
        return [math.nan if is_missing(item) and not isinstance(item, float) else float(item) for item in items]
    # Feast's message would have 0 or an empty text instead of the null.
    if has_null and leaf is not DType.TIMESTAMP:
        raise SourceError(
            owner,
            f"is declared as {dtype}, but a list contains a null, which Feast cannot store",
            fix="remove the null elements, or declare a list of floats, where null becomes NaN",
        )
    return [_fit_list(owner, base, item) for item in items] if isinstance(base, Array | Set) else items


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _levels(column: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """Yield the elements of lists, at each depth."""
    while _is_list(column.type):
        column = pc.list_flatten(column)
        yield column


def _leaf(dtype: Any) -> Any:  # noqa: ANN401 - Feast's types have no common one
    while isinstance(dtype, Array | Set):
        dtype = dtype.base_type
    return dtype


def _leaf_type(kind: pa.DataType) -> pa.DataType:
    return _leaf_type(kind.value_type) if _is_list(kind) else kind


def _with_leaf(kind: pa.DataType, leaf: pa.DataType) -> pa.DataType:
    return pa.list_(_with_leaf(kind.value_type, leaf)) if _is_list(kind) else leaf


def common_type(owner: str, name: str, entity_types: Mapping[str, str], source_type: str) -> str:
    """Return DuckDB's type for comparing a key of entity rows with a key of a source.

    Args:
        owner: the view, for errors.
        name: column of the entity rows.
        entity_types: DuckDB's type of each column of the entity rows.

    Raises:
        RequestError: the entity rows do not have the key, or keys of these types can never be equal.

    >>> common_type("view 'v'", "id", {"id": "DOUBLE"}, "INTEGER")
    'BIGINT'
    >>> common_type("view 'v'", "id", {"id": "VARCHAR"}, "VARCHAR")
    'VARCHAR'
    """
    if name not in entity_types:
        raise RequestError(
            "entity rows",
            f"have no key of {owner}",
            value=name,
            fix="add the column, or remove the view from the request",
        )
    entity, source = _kind(entity_types[name]), _kind(source_type)
    if entity in _NULL_TYPES:
        return source
    if source in _NULL_TYPES or entity == source:
        return entity
    if {entity, source} <= {INTEGER, "HUGEINT", "DOUBLE"}:
        # pandas converts a column of integers with a null to floats.
        return "HUGEINT" if "HUGEINT" in {entity, source} else INTEGER
    raise RequestError(
        f"{owner} key {name!r}",
        f"has type {entity_types[name]} in the entity rows and {source_type} in the source",
        fix="give the entity rows the type of the source",
    )


def cast_key(expression: str, from_type: str, target: str) -> str:
    """Return SQL of a key in the type of the comparison; null if the key does not fit the type.

    >>> cast_key("k", "DOUBLE", "BIGINT")
    'CASE WHEN k = trunc(k) THEN TRY_CAST(k AS BIGINT) END'
    """
    if from_type in {*_SQL_FLOATS, EXACT} and target in {INTEGER, "HUGEINT"}:
        return f"CASE WHEN {expression} = trunc({expression}) THEN TRY_CAST({expression} AS {target}) END"
    return expression if from_type == target else f"TRY_CAST({expression} AS {target})"


def _kind(sql_type: str) -> str:
    if sql_type in {"HUGEINT", "UBIGINT", "UHUGEINT"}:
        return "HUGEINT"
    if sql_type in _INTEGERS or sql_type == EXACT:
        return INTEGER
    if sql_type in _SQL_FLOATS:
        return "DOUBLE"
    if sql_type in _NULL_TYPES:
        return "NULL"
    if sql_type.startswith(("ENUM", "VARCHAR", "UUID", "JSON")):
        return "VARCHAR"
    return "TIMESTAMPTZ" if sql_type.startswith("TIMESTAMP") else sql_type
