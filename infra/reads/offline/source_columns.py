"""Check that a source has the columns that a view declares, with types that fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.plan import View

NO_ENTITY = (
    "__dummy_id"  # Feast's key column for a view without entities: it is not a column of the source, its value is empty
)
NAIVE = frozenset({"TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S"})
_ZONED = "TIMESTAMP WITH TIME ZONE"
EXACT = "DECIMAL(38,18)"  # integers of text files; a value with a fraction is rejected when it is read
_ALL_NULL = '"NULL"'  # type of a Parquet column without any value, as pandas writes it
_SMALL = ("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT")
# pandas converts integers with a null to floats, so DOUBLE is accepted for integers; a value with a fraction is
# rejected when it is read.
_ACCEPTED = {
    DType.INT32: {*_SMALL, "BIGINT", "DOUBLE", EXACT},
    DType.INT64: {*_SMALL, "BIGINT", "UINTEGER", "UBIGINT", "DOUBLE", EXACT},
    DType.FLOAT32: {"FLOAT", "DOUBLE", "TINYINT", "SMALLINT", "INTEGER"},
    DType.FLOAT64: {"FLOAT", "DOUBLE", "TINYINT", "SMALLINT", "INTEGER", "BIGINT"},
    DType.BOOL: {"BOOLEAN"},
    DType.STRING: {"VARCHAR"},
    DType.BYTES: {"BLOB"},
    DType.TIMESTAMP: {_ZONED, "TIMESTAMPTZ_NS", "DATE"},
}

_INTEGERS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"})
_UNSIGNED = frozenset({"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"})
# Further types that features accept, as Feast does: converting to the declared type does not change the values.
_CONVERTED = {
    DType.INT32: _INTEGERS | _UNSIGNED | {"BOOLEAN", "FLOAT", "DECIMAL"},
    DType.INT64: _INTEGERS | _UNSIGNED | {"BOOLEAN", "FLOAT", "DECIMAL"},
    DType.FLOAT32: _INTEGERS | _UNSIGNED | {"BOOLEAN", "DECIMAL"},
    DType.FLOAT64: _INTEGERS | _UNSIGNED | {"DECIMAL"},
    DType.STRING: _INTEGERS | _UNSIGNED | {"BOOLEAN", "UUID", "ENUM"},
}


def check_view(name: str, types: Mapping[str, str], view: View, *, naive_is_utc: bool = False) -> None:
    """Check that a view's source has the columns of the view, with types that fit.

    Raises:
        SourceError: as ``check_columns``.
    """
    converted = {view.source.column(column.name) for column in view.features}
    converted -= {view.source.column(column.name) for column in view.keys}
    check_columns(name, types, view_columns(view), naive_is_utc=naive_is_utc, converted=converted)


def is_converted(kind: str, dtype: DType) -> bool:
    """Say whether a feature of a declared type may be read from a column of another type.

    >>> is_converted("DECIMAL(10,2)", DType.FLOAT64), is_converted("DOUBLE", DType.STRING)
    (True, False)
    """
    return kind.partition("(")[0] in _CONVERTED.get(dtype, set()) | _ACCEPTED[dtype]


def check_columns(
    name: str,
    types: Mapping[str, str],
    columns: Mapping[str, DType],
    *,
    naive_is_utc: bool = False,
    converted: Collection[str] = (),
) -> None:
    """Check that a table has the declared columns, with types that fit exactly.

    Args:
        name: name of the table in errors.
        types: DuckDB's type of each column of the table.
        columns: the declared columns with their types.
        naive_is_utc: accept times without a zone, as Feast does.
        converted: columns whose values may be converted to the declared type, as Feast does.

    Raises:
        SourceError: a column is missing, has no time zone, or is of another type.
    """
    for column, dtype in columns.items():
        if column not in types:
            raise SourceError(
                name,
                "has no such column",
                value=column,
                fix=f"correct the definition, or add the column; it has {', '.join(types)}",
            )
        if types[column] in NAIVE and dtype is DType.TIMESTAMP:
            if naive_is_utc:
                continue
            raise SourceError(
                f"{name} column {column!r}",
                "is a time without a zone",
                value=types[column],
                fix="write it with zone UTC (pyarrow: pa.timestamp('us', tz='UTC'))",
            )
        fits = types[column] in _ACCEPTED[dtype] | {_ALL_NULL}
        if not fits and not (column in converted and is_converted(types[column], dtype)):
            is_flag = types[column] == "BOOLEAN" and dtype in {DType.FLOAT32, DType.FLOAT64}
            fix = "write true as 1 and false as 0" if is_flag else "correct the definition, or write that type"
            problem = f"does not fit the declared type {dtype}"
            raise SourceError(f"{name} column {column!r}", problem, value=types[column], fix=fix)


def view_columns(view: View) -> dict[str, DType]:
    """Return the source columns that a view reads, with their declared types."""
    source = view.source
    named = [column for column in (*view.keys, *view.features) if column.name != NO_ENTITY]
    columns = {source.column(column.name): column.dtype for column in named}
    columns[source.event_column] = DType.TIMESTAMP
    if source.created_column:
        columns[source.created_column] = DType.TIMESTAMP
    if source.tombstone_column:
        columns[source.tombstone_column] = DType.BOOL
    return columns
