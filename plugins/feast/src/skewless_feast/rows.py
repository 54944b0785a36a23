"""Convert Feast's rows and pushed frames to packed rows, and rows of a source to Feast's messages.

Messages are for views with types that only messages support.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast.data_source import DataSource
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values

from skewless.contract.arrow_types import arrow_type, cast_times
from skewless.contract.clock import Clock, to_us
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.rows import NO_TIME, Versions
from skewless.contract.status import Int64Array
from skewless.infra.ingest.materialization.latest_rows import pack_columns
from skewless.infra.reads.offline.arrays import to_int64
from skewless.infra.reads.online.port import Binaries
from skewless_feast.exact_values import fit_values, is_missing
from skewless_feast.stored_views import OPAQUE, StoredView, Table
from skewless_feast.values import key_columns, pack_values, parse_keys

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]

_NO_RUN = -1
_STAMP = pa.timestamp("us", tz="UTC")
_ARROW = {dtype: arrow_type(dtype) for dtype in DType} | {
    DType.STRING: pa.large_string(),
    DType.BYTES: pa.large_binary(),
    DType.TIMESTAMP: _STAMP,
}


@dataclass(frozen=True, kw_only=True)
class PackedRows:
    """Rows to write: keys, event times (microseconds) and packed bytes, in the order of arrival."""

    keys: Binaries
    event_ts: Int64Array
    rows: pa.LargeBinaryArray


class Positions:
    """Numbers direct writes: the clock in microseconds, but strictly growing and above 2^50."""

    def __init__(self, clock: Clock) -> None:
        """Start at the current time."""
        self._clock = clock
        # Greater than each position of a log: of rows with equal times the direct write wins, and of two direct writes
        # the later (SEMANTICS 2.3).
        self._next = 2**50
        self._lock = threading.Lock()

    def now_us(self) -> int:
        """Return the current time, UTC microseconds."""
        return self._clock.now_us()

    def reserve(self, n: int) -> Int64Array:
        """Return n numbers, each unique in this process."""
        with self._lock:
            first = max(self._next, self._clock.now_us())
            self._next = first + n
        return np.arange(first, first + n, dtype=np.int64)


def pack_rows(stored: StoredView, project: str, data: Sequence[Row], positions: Int64Array) -> PackedRows:
    """Return the keys and rows of a direct write.

    Raises:
        SourceError: a key or an event time is null, or a value has another type than its feature.
        RequestError: a key has another type than declared.
    """
    view = stored.view
    key_values = parse_keys(view.keys, key_columns([row[0] for row in data]))
    keys = stored.key_codec(project).encode_columns(key_values)
    values, nulls = pack_values(stored, [row[1] for row in data])
    versions = _versions(stored, data, positions)
    rows = stored.codec.pack(versions, values, nulls)
    named = [key for key in keys if key is not None]
    if len(named) < len(rows):
        raise SourceError(
            f"view {view.name!r}",
            "was sent a row with a null key",
            value=keys.index(None) if None in keys else None,
            fix="remove such rows",
        )
    return PackedRows(keys=named, event_ts=versions.event_ts, rows=rows)


def _versions(stored: StoredView, data: Sequence[Row], positions: Int64Array) -> Versions:
    event = [_to_us(row[2]) for row in data]
    created = [_to_us(row[3]) for row in data]
    if None in event:
        raise SourceError(
            f"view {stored.view.name!r}",
            "was sent a row without an event time",
            value=event.index(None),
            fix="fill the timestamp column",
        )
    created_ts = np.array([NO_TIME if time_us is None else time_us for time_us in created], dtype=np.int64)
    return push_versions(np.array(event, dtype=np.int64), created_ts, positions)


def push_versions(event_ts: Int64Array, created_ts: Int64Array | None, positions: Int64Array) -> Versions:
    """Return the versions of directly written rows; ``created_ts`` None: no row has a created time."""
    n = len(positions)
    return Versions(
        event_ts=event_ts,
        created_ts=np.full(n, NO_TIME, dtype=np.int64) if created_ts is None else created_ts,
        seq=positions,
        run_id=np.full(n, _NO_RUN, dtype=np.int64),
        tombstone=np.zeros(n, dtype=np.bool_),
    )


def _to_us(time: datetime | None) -> int | None:
    # pandas.NaT, the null of times in pandas, is the only time that differs from itself.
    return None if time is None or time != time else to_us(time)  # noqa: PLR0124


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
    columns = {name: column for name, column in (times | typed).items() if column is not None}
    for name in (*(key.name for key in view.keys), event):
        _check_not_null(stored, name, columns[name])
    created_ts = to_int64(times[created], NO_TIME) if created in times else None
    versions = push_versions(to_int64(times[event], NO_TIME), created_ts, positions)
    columns |= {name: columns[name].cast(pa.int64()) for name, dtype in declared.items() if dtype is DType.TIMESTAMP}
    keys, rows = pack_columns(view, stored.key_codec(project), stored.codec, columns, versions)
    return PackedRows(keys=keys, event_ts=versions.event_ts, rows=rows)


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
        result = column.cast(target, safe=dtype is not DType.FLOAT32)
        # A finite number may have become infinite: messages are checked number by number.
        return None if dtype is DType.FLOAT32 and pc.any(pc.is_inf(result)).as_py() else result
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


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


def to_messages(view: Table, table: pa.Table, batch_rows: int) -> Iterator[list[Row]]:
    """Yield rows in the form that Feast writes to an online store, in batches.

    Raises:
        SourceError: a value does not fit the declared type, or a list contains a null that messages cannot have.
    """
    event, created = time_columns(get_batch_source(view))
    for batch in table.to_batches(max_chunksize=batch_rows):
        yield _rows(view, batch, event, created)


def get_batch_source(view: Table) -> DataSource:
    """Return the batch source of a view.

    Raises:
        SourceError: the view has none.
    """
    source: DataSource | None = view.batch_source
    if source is None:
        raise SourceError(f"view {view.name!r}", "has no batch source to materialize from", fix="add a batch source")
    return source


def _rows(view: Table, batch: pa.RecordBatch, event: str, created: str) -> list[Row]:
    # Python integers: numpy would convert an int64 column with a null to float64.
    columns = {
        name: batch.column(name).to_pylist(maps_as_pydicts="strict") for name in _names(view, batch.schema.names)
    }
    return _build_rows(view, columns, _read_times(batch, event), _read_times(batch, created) if created else None)


def frame_to_messages(view: Table, frame: pd.DataFrame) -> list[Row]:
    """Return a pushed frame in the form that Feast writes to an online store.

    Feast converts with Arrow, which would give each dict of a column the keys of all other dicts, and change an int64
    beyond 2^53 next to a null.

    Raises:
        SourceError: a value does not fit the declared type, or a list contains a null that messages cannot have.
    """
    source = get_batch_source(view)
    frame = frame.rename(columns=source.field_mapping or {})
    event, created = time_columns(source)
    columns = {name: _plain(frame[name].tolist()) for name in _names(view, frame.columns)}
    return _build_rows(view, columns, _parse_times(frame[event]), _parse_times(frame[created]) if created else None)


def _names(view: Table, existing: Container[str]) -> list[str]:
    """Return the columns for messages: existing key columns, and all feature columns."""
    keys = [str(column.name) for column in view.entity_columns if column.name in existing]
    return [*keys, *(str(field.name) for field in view.features if field.name not in keys)]


def _build_rows(
    view: Table, columns: Mapping[str, list[Any]], times: Sequence[datetime], created: Sequence[datetime] | None
) -> list[Row]:
    """Return columns of plain values as rows of messages; rows of a view without entities have no key."""
    types = {field.name: field.dtype for field in (*view.features, *view.entity_columns)}
    fitted = {
        name: fit_values(f"view {view.name!r} column {name!r}", types[name], values) for name, values in columns.items()
    }
    messages = {
        name: python_values_to_proto_values(values, types[name].to_value_type()) for name, values in fitted.items()
    }
    keys = {column.name: messages.pop(column.name) for column in view.entity_columns if column.name in messages}
    return [
        (
            EntityKey(join_keys=list(keys), entity_values=[values[i] for values in keys.values()]),
            {name: values[i] for name, values in messages.items()},
            times[i],
            created[i] if created else None,
        )
        for i in range(len(times))
    ]


def _plain(values: list[Any]) -> list[Any]:
    return [None if is_missing(value) else value for value in values]


def _parse_times(column: pd.Series[Any]) -> list[Any]:
    return _plain(pd.to_datetime(column, utc=True).tolist())


def _read_times(batch: pa.RecordBatch, name: str) -> list[datetime]:
    column = batch.column(name)
    times: list[datetime] = cast_times(column, pa.timestamp("us", tz=getattr(column.type, "tz", None))).to_pylist()
    return times
