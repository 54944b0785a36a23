"""Convert pushed frames to packed rows, column by column."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from feast.data_source import DataSource

from skewless.contract.arrow_numbers import find_nulls
from skewless.contract.arrow_types import arrow_type, cast_times
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.rows import NO_TIME
from skewless.contract.status import Int64Array
from skewless.infra.feast_plugins.rows import PackedRows, push_versions
from skewless.infra.feast_plugins.stored_views import OPAQUE, StoredView
from skewless.infra.offline.arrays import to_int64, to_numpy

_STAMP = pa.timestamp("us", tz="UTC")
_ARROW = {dtype: arrow_type(dtype) for dtype in DType} | {
    DType.STRING: pa.large_string(),
    DType.BYTES: pa.large_binary(),
    DType.TIMESTAMP: _STAMP,
}


def pack_frame(
    stored: StoredView, project: str, table: pa.Table, source: DataSource, positions: Int64Array
) -> PackedRows | None:
    """Return the keys and rows of a frame; None if only Feast can convert its types to the declared types.

    Raises:
        SourceError: a key or an event time is null.
    """
    view = stored.view
    declared = {column.name: column.dtype for column in (*view.keys, *view.features)}
    if OPAQUE in stored.kinds.values() or not set(declared) <= set(table.column_names):
        return None
    event, created = time_columns(source)
    stamps = {event, created} - {""}
    typed = {name: _cast(table[name], dtype) for name, dtype in declared.items()}
    times = {name: _cast(table[name], DType.TIMESTAMP) for name in stamps if name in table.column_names}
    if None in typed.values() or None in times.values() or event not in times:
        return None
    columns: dict[str, Any] = {name: column for name, column in typed.items() if column is not None}
    for name in (*(key.name for key in view.keys), event):
        _check_not_null(stored, name, columns[name] if name in columns else times[name])
    features = {column.name: _values(columns[column.name], column.dtype) for column in view.features}
    nulls = {column.name: find_nulls(columns[column.name]) for column in view.features}
    created_ts = to_int64(times[created], NO_TIME) if created in times else None
    versions = push_versions(to_int64(times[event], NO_TIME), created_ts, positions)
    keys = stored.key_codec(project).pack({key.name: columns[key.name].combine_chunks() for key in view.keys})
    return PackedRows(keys=keys, event_ts=versions.event_ts, rows=stored.codec.pack(versions, features, nulls))


def _cast(column: pa.ChunkedArray, dtype: DType) -> pa.ChunkedArray | None:
    """Return a column in the declared type; None if this would change a value or needs a conversion of Feast."""
    kind, target = column.type, _ARROW[dtype]
    if pa.types.is_null(kind):
        return column.cast(target)
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if dtype is not DType.TIMESTAMP and (dtype.is_text or dtype is DType.BOOL) is numbers:
        return None
    try:
        if dtype is DType.TIMESTAMP:
            return cast_times(column, _STAMP) if pa.types.is_timestamp(kind) else None
        # Feast rounds to float32, too; all other types must fit exactly.
        return column.cast(target, safe=dtype is not DType.FLOAT32)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _values(column: pa.ChunkedArray, dtype: DType) -> Any:  # noqa: ANN401 - Arrow for text, numpy for the rest
    if dtype.is_text:
        return column.combine_chunks()
    return to_numpy(column.cast(pa.int64()) if dtype is DType.TIMESTAMP else column, dtype)


def time_columns(source: DataSource) -> tuple[str, str]:
    """Return the names of the event and created time columns, after the source's field mapping."""
    renamed = source.field_mapping or {}
    event, created = source.timestamp_field or "", source.created_timestamp_column or ""
    return renamed.get(event, event), renamed.get(created, created)


def _check_not_null(stored: StoredView, name: str, column: pa.ChunkedArray) -> None:
    if column.null_count:
        raise SourceError(
            f"view {stored.view.name!r}",
            "was sent a row without a key or an event time",
            value=f"{name} of row {pc.index(column.is_null(), True).as_py()}",
            fix="remove such rows",
        )
