"""The schema of a stream partition's log rows: the event's columns and the columns that skewless adds."""

from __future__ import annotations

import pyarrow as pa

from skewless.contract.arrow_types import arrow_type
from skewless.contract.windows.view import EventSource
from skewless.infra.log.log_columns import EVENT, INGEST, RAW, REJECT

SOURCE_POS = "__source_pos"
EVENT_ID = "__event_id"
DECLARED = "__declared"


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
