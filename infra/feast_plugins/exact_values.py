"""Values that Feast would change silently when it builds messages, and keys that are compared in one type."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import Field
from feast.types import Array, Set

from skewless.contract.arrow_types import arrow_type
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError, SourceError
from skewless.infra.compiler.views import to_dtype
from skewless.infra.feast_plugins.stored_views import Table
from skewless.infra.offline.source_columns import EXACT

_LIMITS = {DType.INT32: (-(2**31), 2**31 - 1), DType.INT64: (-(2**63), 2**63 - 1)}
_FLOATS = frozenset({DType.FLOAT32, DType.FLOAT64})
INTEGER = "BIGINT"
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"}
_SQL_FLOATS = {"FLOAT", "DOUBLE"}
_NULL_TYPES = {'"NULL"', "NULL"}


def fit_frame(view: Table, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a pushed frame in a form that Feast converts to messages without changing a value.

    Raises:
        SourceError: a value does not fit the declared type, or a list contains a null that messages cannot have.
    """
    changed, kinds = {}, dict(zip(frame.columns, frame.dtypes, strict=True))
    for field in view.features:
        # The type alone decides for most columns, so a push does not look at their values.
        if field.name not in kinds or _is_exact_type(field, kinds[field.name]):
            continue
        column = frame[field.name]
        original = pa.chunked_array([pa.array(column, from_pandas=True)])
        fitted = fit_column(f"view {view.name!r} feature {field.name!r}", field, original)
        if fitted is not original:
            changed[field.name] = pd.Series(fitted.to_pylist(), index=frame.index, dtype=object)
    return frame.assign(**changed) if changed else frame


def fit_table(view: Table, table: pa.Table) -> pa.Table:
    """Return rows of a view's source in a form that Feast converts to messages without changing a value.

    Raises:
        SourceError: as ``fit_frame``.
    """
    for field in view.features:
        index = table.schema.get_field_index(field.name)
        if index >= 0:
            owner = f"source of view {view.name!r} column {field.name!r}"
            table = table.set_column(index, field.name, fit_column(owner, field, table.column(index)))
    return table


def fit_column(owner: str, field: Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of a declared type: a null in a list of floats becomes NaN, in a list of times it stays.

    Raises:
        SourceError: a number does not fit the declared type, or a list of another type contains a null.
    """
    dtype = to_dtype(field.dtype)
    if dtype is not None:
        _check_exact(owner, dtype, column)
        return column
    with_null = [part for part in _levels(column) if part.null_count]
    if not isinstance(field.dtype, Array | Set) or not with_null:
        return column
    leaf, is_complete = to_dtype(_leaf(field.dtype)), not any(_is_list(part.type) for part in with_null)
    if leaf is DType.TIMESTAMP and is_complete:
        return column
    # Feast's message would have 0 or an empty text instead of the null.
    if leaf not in _FLOATS or not is_complete:
        raise SourceError(
            owner,
            f"is declared as {field.dtype}, but a list contains a null, which Feast cannot store",
            fix="remove the null elements, or declare a list of floats, where null becomes NaN",
        )
    lists = [_fill_nulls(item) for item in column.to_pylist()]
    return pa.chunked_array([pa.array(lists, _with_leaf(column.type, arrow_type(leaf)))])


def _is_exact_type(field: Field, kind: Any) -> bool:  # noqa: ANN401 - numpy's types and pandas' have no common one
    """Say whether the type of a column alone excludes values that Feast would change."""
    dtype = to_dtype(field.dtype)
    if dtype is None:
        return not isinstance(field.dtype, Array | Set)
    plain = getattr(kind, "numpy_dtype", kind)  # pandas' nullable integer types wrap numpy types
    if dtype in _LIMITS:
        return kind.kind == "b" or (kind.kind in "iu" and np.can_cast(plain, np.dtype(dtype.numpy)))
    return dtype is not DType.FLOAT32 or kind.kind in "biu" or plain == np.float32


def _check_exact(owner: str, dtype: DType, column: pa.ChunkedArray) -> None:
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        return
    if dtype in _LIMITS:
        try:
            column.cast(arrow_type(dtype))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # Arrow does not name the value, so find it
            lost = [_misfits_integer(value, *_LIMITS[dtype]) for value in column.to_pylist()]
            _check_none_lost(owner, dtype, column, lost)
    elif dtype is DType.FLOAT32 and kind != pa.float32():
        with np.errstate(over="ignore"):
            # Rounding to float32 is declared and stays; a finite number that becomes infinite is another value.
            wide = np.array([math.nan if value is None else float(value) for value in column.to_pylist()])
            lost = (np.isinf(wide.astype(np.float32)) & ~np.isinf(wide)).tolist()
        _check_none_lost(owner, dtype, column, lost)


def _misfits_integer(value: Any, low: int, high: int) -> bool:  # noqa: ANN401 - a number of any kind
    if value is None or value != value:  # noqa: PLR0124 - NaN, Feast's null
        return False
    return math.isinf(value) or value != int(value) or not low <= value <= high


def _check_none_lost(owner: str, dtype: DType, column: pa.ChunkedArray, lost: list[bool]) -> None:
    if any(lost):
        raise SourceError(
            owner,
            f"has a value that does not fit {dtype}",
            value=column[lost.index(True)].as_py(),
            fix="correct the value, or declare a wider type",
        )


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


def _fill_nulls(value: Any) -> Any:  # noqa: ANN401 - a list of lists, or of numbers
    if isinstance(value, list):
        return [math.nan if item is None else _fill_nulls(item) for item in value]
    return None if value is None else float(value)


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
