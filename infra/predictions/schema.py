"""The columns of the prediction log."""

from __future__ import annotations

import pyarrow as pa

FORMAT = 3  # format 1 lacks the column `format`, format 2 lacks role and policy
APPLIED = pa.struct([("partition", pa.int64()), ("seq", pa.int64())])
READ = pa.struct(
    [
        ("view", pa.string()),
        ("hash", pa.string()),
        ("status", pa.uint8()),
        ("event_ts", pa.int64()),
        ("created_ts", pa.int64()),
        ("seq", pa.int64()),
        ("run_id", pa.int64()),
        ("generation", pa.int32()),
        ("applied", pa.list_(APPLIED)),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("t", pa.int64()),
        ("asked_at", pa.int64()),
        ("read_start", pa.int64()),
        ("read_end", pa.int64()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("runtime_id", pa.string()),
        ("tolerance", pa.float64()),
        ("plan_hash", pa.string()),
        ("transform_hashes", pa.list_(pa.string())),
        ("missing", pa.string()),
        ("skew_us", pa.int64()),
        ("source", pa.string()),
        ("inputs", pa.string()),
        ("reads", pa.list_(READ)),
        ("watermarks", pa.list_(pa.int64())),
        ("vector", pa.list_(pa.float64())),
        ("score", pa.float64()),
        ("scores", pa.list_(pa.float64())),
        ("format", pa.uint8()),
        ("checksum", pa.int64()),
        ("role", pa.string()),
        ("policy", pa.int64()),
        ("narrow", pa.bool_()),
    ]
)
