"""The columns of the outcome log."""

from __future__ import annotations

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("received_at", pa.int64()),
        ("batch", pa.string()),  # with row: names what was said, however often files are merged
        ("row", pa.int32()),
        ("source", pa.string()),
        ("prediction_id", pa.string()),
        ("model", pa.string()),
        ("keys", pa.string()),
        ("event_time", pa.int64()),
        ("label", pa.float64()),
        ("value", pa.float64()),
        ("known_at", pa.int64()),
    ]
)
