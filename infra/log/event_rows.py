"""What a row of a stream partition's log holds beside the event's own columns."""

from __future__ import annotations

import pyarrow as pa

from skewless.contract.arrow_types import arrow_type
from skewless.contract.windows.view import EventSource
from skewless.infra.log.accepted import EVENT, INGEST, RAW, REJECT

SOURCE_POS = "__source_pos"
EVENT_ID = "__event_id"
DECLARED = "__declared"


def event_schema(source: EventSource) -> pa.Schema:
    """Return the columns of a source's log rows, before they are numbered.

    Times are int64 microseconds. ``__event_ts`` of a rejected row is that of its arrival if it has none itself.
    ``__source_pos`` is the position in the stream, ``__reject`` the reason for a row in quarantine, whose message
    stands in ``__raw``. Rows of history have ``__declared`` too: their ``__known_at`` is declared, not when they were
    applied; in other rows, and in logs without the column, it is null.
    """
    own = [pa.field(column.name, arrow_type(column.dtype)) for column in source.columns]
    ours = [
        pa.field(EVENT, pa.int64()),
        pa.field(INGEST, pa.int64()),
        pa.field(SOURCE_POS, pa.int64()),
        pa.field(EVENT_ID, pa.string()),
        pa.field(REJECT, pa.string()),
        pa.field(RAW, pa.binary()),
    ]
    return pa.schema([*own, *ours])
