"""The columns that skewless adds to the rows of logs, and questions about these rows."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.arrow_types import arrow_type
from skewless.contract.errors import StoreError
from skewless.contract.windows.view import EventSource

SEQ = "__seq"
EVENT = "__event_ts"
CREATED = "__created_ts"
INGEST = "__ingest_ts"
RUN = "__run_id"
TOMBSTONE = "__tombstone"
REJECT = "__reject"
RAW = "__raw"
KNOWN_AT = "__known_at"
SOURCE_POS = "__source_pos"
EVENT_ID = "__event_id"
DECLARED = "__declared"
ERASED = "erased"  # the reason in ``__reject`` of a row whose values were erased


def due_sql(delay_us: int) -> str:
    """Return SQL for the time at which a log row is due, int64 microseconds; null for a row without a time.

    A row is due when it was created, but not before its event time: a forecast waits until then. Without a created
    time, the event time plus the declared delay is used.
    """
    return f"greatest({EVENT}, coalesce({CREATED}, {EVENT} + {delay_us}))"


def rejected_reasons(files: Sequence[str]) -> dict[str, int]:
    """Return the number of quarantined rows in log files, by reason; skips row groups without any."""
    counts: Counter[str] = Counter()
    for path in files:
        with pq.ParquetFile(path) as file:
            column = file.schema_arrow.get_field_index(REJECT)
            groups = [i for i in range(file.num_row_groups) if not _is_all_null(file.metadata.row_group(i), column)]
            reasons = file.read_row_groups(groups, columns=[REJECT])[REJECT] if groups else None
            # drop_null imports Arrow's compute functions: a log without rejected rows is read without them.
            if reasons is not None and reasons.null_count < len(reasons):
                counts.update(reasons.drop_null().to_pylist())
    return dict(counts)


def count_rejected(files: Sequence[str]) -> int:
    """Return the number of quarantined rows in log files; erased rows do not count."""
    return sum(rows for reason, rows in rejected_reasons(files).items() if reason != ERASED)


def _is_all_null(group: pq.RowGroupMetaData, column: int) -> bool:
    statistics = group.column(column).statistics
    return bool(statistics is not None and statistics.has_null_count and statistics.null_count == group.num_rows)


def encode_columns(schema: pa.Schema) -> str:
    """Return an Arrow schema as text.

    >>> decode_columns(encode_columns(pa.schema([("a", pa.int64())])))
    a: int64
    >>> decode_columns("").names
    []
    """
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def decode_columns(columns: str) -> pa.Schema:
    """Return the Arrow schema of a text that ``encode_columns`` returned; no columns for an empty text."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(columns))) if columns else pa.schema([])


def unify_columns(partition: str, schema: pa.Schema, added: pa.Schema) -> pa.Schema:
    """Return the columns of a log and of new rows, without ``__known_at``.

    Raises:
        StoreError: a column has another type than in the log.
    """
    # Without metadata, which rows do not have.
    added = pa.schema([pa.field(field.name, field.type) for field in added if field.name != KNOWN_AT])
    try:
        return schema if added.equals(schema) else pa.unify_schemas([schema, added])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StoreError(
            f"log partition {partition!r}",
            f"cannot take a column of another type: {error}",
            fix="give the column a new name",
        ) from error


def merged_options(schema: pa.Schema) -> Mapping[str, Any]:
    """Return how larger files are written: a dictionary for texts, statistics for all columns."""
    text = [field.name for field in schema if not pa.types.is_primitive(field.type)]
    return {"compression": "zstd", "use_dictionary": text}


def sorted_options(schema: pa.Schema) -> Mapping[str, Any]:
    """Return how files that are sorted by bucket are written: times and positions grow within a bucket."""
    integers = [field.name for field in schema if pa.types.is_signed_integer(field.type)]
    return {**merged_options(schema), "column_encoding": dict.fromkeys(integers, "DELTA_BINARY_PACKED")}


def fill_known_at(rows: pa.Table, known_us: int) -> pa.Table:
    """Return rows with ``__known_at`` where it was null."""
    column = rows[KNOWN_AT]
    if not column.null_count:
        return rows
    known = pa.chunked_array([int64_array(np.full(rows.num_rows, known_us))])
    if column.null_count < rows.num_rows:
        import pyarrow.compute as pc  # noqa: PLC0415 - a command that changes nothing does without

        known = pc.coalesce(column, known)
    return rows.set_column(rows.schema.get_field_index(KNOWN_AT), KNOWN_AT, known)


def event_schema(source: EventSource) -> pa.Schema:
    """Return the columns of a source's log rows, without their position.

    Times are int64 microseconds. ``__event_ts`` of a rejected row without an event time is its time of arrival.
    ``__source_pos`` is the position in the stream. ``__reject`` is the reason for a quarantined row, and ``__raw`` its
    message. Backfilled rows of history also have ``__declared``: their ``__known_at`` was declared, not measured. In
    other rows, and in logs without the column, it is null.
    """
    event_columns = [pa.field(column.name, arrow_type(column.dtype)) for column in source.columns]
    added_columns = [
        pa.field(EVENT, pa.int64()),
        pa.field(INGEST, pa.int64()),
        pa.field(SOURCE_POS, pa.int64()),
        pa.field(EVENT_ID, pa.string()),
        pa.field(REJECT, pa.string()),
        pa.field(RAW, pa.binary()),
    ]
    return pa.schema([*event_columns, *added_columns])
